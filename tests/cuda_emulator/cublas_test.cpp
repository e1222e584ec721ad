// The cuBLAS shim: products in every layout, and what it must refuse.
#include <cublas_v2.h>
#include <cuda_bf16.h>

#include <cmath>

#include "tests/cuda_emulator/test_support.h"

namespace tramontane::emulator {
namespace {

class Cublas : public EmulatorTest {
 protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cublasSetStream(handle_, stream_), CUBLAS_STATUS_SUCCESS);
  }
  void TearDown() override {
    if (handle_) cublasDestroy(handle_);
    EmulatorTest::TearDown();
  }
  cublasHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

// As row-major y[rows][outputs] = x[rows][k] * w[outputs][k]^T: column-major C = op(A) * B.
TEST_F(Cublas, LinearLayerInBothOutputTypes) {
  constexpr int kRows = 5, kOutputs = 24, kDepth = 48;
  std::vector<__nv_bfloat16> w, x;
  for (const float v : random_floats(kOutputs * kDepth, 1)) w.push_back(__float2bfloat16(v));
  for (const float v : random_floats(kRows * kDepth, 2)) x.push_back(__float2bfloat16(v));
  DeviceArray<__nv_bfloat16> dw(w), dx(x), narrow(kRows * kOutputs);
  const auto before = random_floats(kRows * kOutputs, 3);
  DeviceArray<float> wide(before);
  const float one = 1, half = 0.5f, zero = 0;
  ASSERT_EQ(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, kOutputs, kRows, kDepth, &half, dw.get(),
                         CUDA_R_16BF, kDepth, dx.get(), CUDA_R_16BF, kDepth, &one, wide.get(), CUDA_R_32F,
                         kOutputs, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  ASSERT_EQ(cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, kOutputs, kRows, kDepth, &one, dw.get(),
                         CUDA_R_16BF, kDepth, dx.get(), CUDA_R_16BF, kDepth, &zero, narrow.get(), CUDA_R_16BF,
                         kOutputs, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
            CUBLAS_STATUS_SUCCESS);
  const auto y = wide.values();
  const auto n = narrow.values();
  for (int r = 0; r < kRows; ++r)
    for (int o = 0; o < kOutputs; ++o) {
      double sum = 0;
      for (int k = 0; k < kDepth; ++k)
        sum += static_cast<double>(__bfloat162float(w[o * kDepth + k])) * __bfloat162float(x[r * kDepth + k]);
      ASSERT_NEAR(y[r * kOutputs + o], 0.5 * sum + before[r * kOutputs + o], 1e-5);
      ASSERT_NEAR(__bfloat162float(n[r * kOutputs + o]), sum, 0.004 * std::fabs(sum) + 1e-5);
    }
}

TEST_F(Cublas, BatchesAndTransposes) {
  constexpr int kM = 8, kN = 16, kK = 24, kBatch = 3;
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const auto a = random_floats(kM * kK * kBatch, 4), b = random_floats(kK * kN * kBatch, 5);
      DeviceArray<float> da(a), db(b), dc(kM * kN * kBatch);
      const float one = 1, zero = 0;
      ASSERT_EQ(
          cublasGemmStridedBatchedEx(handle_, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                                     kM, kN, kK, &one, da.get(), CUDA_R_32F, ta ? kK : kM, kM * kK, db.get(),
                                     CUDA_R_32F, tb ? kN : kK, kK * kN, &zero, dc.get(), CUDA_R_32F, kM,
                                     kM * kN, kBatch, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
          CUBLAS_STATUS_SUCCESS);
      const auto c = dc.values();
      for (int i = 0; i < kBatch; ++i)
        for (int m = 0; m < kM; ++m)
          for (int n = 0; n < kN; ++n) {
            double sum = 0;
            for (int k = 0; k < kK; ++k)
              sum += static_cast<double>(a[i * kM * kK + (ta ? m * kK + k : k * kM + m)]) *
                     b[i * kK * kN + (tb ? k * kN + n : n * kK + k)];
            ASSERT_NEAR(c[i * kM * kN + n * kM + m], sum, 1e-5) << ta << tb;
          }
    }
}

TEST_F(Cublas, RefusesWhatWouldGoWrong) {
  ASSERT_TRUE(set("STREAMS", "late"));
  DeviceArray<__nv_bfloat16> a(64 * 64), b(64 * 64), c(64 * 64);
  const float one = 1, zero = 0;
  const auto gemm = [&](const void* pointer, int lda, cudaDataType type, cublasComputeType_t compute) {
    return cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, 64, 64, 64, &one, pointer, type, lda, b.get(),
                        CUDA_R_16BF, 64, &zero, c.get(), CUDA_R_16BF, 64, compute, CUBLAS_GEMM_DEFAULT);
  };
  EXPECT_EQ(gemm(a.get(), 32, CUDA_R_16BF, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(gemm(a.get(), 65, CUDA_R_16BF, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_NOT_SUPPORTED)
      << "rows not aligned";
  EXPECT_EQ(gemm(a.get() + 1, 64, CUDA_R_16BF, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(gemm(a.get(), 64, CUDA_R_32F, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(gemm(a.get(), 64, CUDA_R_16BF, CUBLAS_COMPUTE_16F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(gemm(a.get(), 64, CUDA_R_16BF, CUBLAS_COMPUTE_32F), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure) << "the matrices were never written";
}

TEST_F(Cublas, RunsInItsStreamAndInGraphs) {
  std::vector<__nv_bfloat16> ones(64 * 64, __float2bfloat16(1.0f));
  DeviceArray<__nv_bfloat16> a(ones), b(ones);
  DeviceArray<float> c(std::vector<float>(64 * 64, 0.0f));
  const float one = 1;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_EQ(
      cublasGemmEx(handle_, CUBLAS_OP_T, CUBLAS_OP_N, 64, 64, 64, &one, a.get(), CUDA_R_16BF, 64, b.get(),
                   CUDA_R_16BF, 64, &one, c.get(), CUDA_R_32F, 64, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      CUBLAS_STATUS_SUCCESS);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
  EXPECT_EQ(c.values()[77], 192.0f);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
}

}  // namespace
}  // namespace tramontane::emulator
