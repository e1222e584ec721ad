// Failures on purpose: what is asked for fails, once, as CUDA would let it fail, and nothing else does.
#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;
using ::testing::HasSubstr;

constexpr int kCount = 64;

class Injections : public EmulatorTest {
 protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&x_), kCount * sizeof(int)), cudaSuccess);
    ASSERT_EQ(cudaMemset(x_, 0, kCount * sizeof(int)), cudaSuccess);
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  }
  cudaError_t launch() {
    add_one(x_, kCount, stream_);
    return cudaGetLastError();
  }
  int first() {
    int value = -1;
    EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess) << report();
    EXPECT_EQ(cudaMemcpy(&value, x_, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
    return value;
  }

  int* x_ = nullptr;
  cudaStream_t stream_ = nullptr;
};

TEST_F(Injections, OutOfMemoryAtOneCallLeavesTheContextWhole) {
  ASSERT_TRUE(set("FAIL_CALL", "cudaMalloc:2"));
  void *a = nullptr, *b = nullptr, *c = nullptr, *pinned = nullptr;
  EXPECT_EQ(cudaMallocHost(&pinned, 64), cudaSuccess) << "another call, though its name begins so";
  EXPECT_EQ(cudaMalloc(&a, 64), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&b, 64), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(cudaMalloc(&c, 64), cudaSuccess);
  EXPECT_EQ(launch(), cudaSuccess);
  EXPECT_EQ(first(), 1);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(Injections, ARefusedLaunchDoesNothing) {
  ASSERT_TRUE(set("FAIL_LAUNCH", "add_one:2"));
  EXPECT_EQ(launch(), cudaSuccess);
  EXPECT_EQ(launch(), cudaErrorLaunchOutOfResources);
  EXPECT_EQ(launch(), cudaSuccess);
  EXPECT_EQ(first(), 2);
}

TEST_F(Injections, AFaultInAKernelComesOutOfTheNextWaitAndStays) {
  ASSERT_TRUE(set("FAIL_RUN", "add_one:1:cudaErrorECCUncorrectable"));
  ASSERT_TRUE(set("STREAMS", "late"));
  EXPECT_EQ(launch(), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorECCUncorrectable);
  EXPECT_THAT(report(), HasSubstr("add_one"));
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, 64), cudaErrorECCUncorrectable) << "the context is lost";
  EXPECT_EQ(launch(), cudaErrorECCUncorrectable);
  EXPECT_EQ(cudaDeviceReset(), cudaSuccess);
  EXPECT_EQ(cudaMalloc(&p, 64), cudaSuccess);
}

TEST_F(Injections, AFaultCanCountTheLaunchesOutOfAGraph) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  EXPECT_EQ(launch(), cudaSuccess);
  ASSERT_EQ(cudaStreamEndCapture(stream_, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  ASSERT_TRUE(set("FAIL_RUN", "*:3"));
  for (int step = 1; step <= 2; ++step) {
    EXPECT_EQ(cudaGraphLaunch(exec, stream_), cudaSuccess);
    EXPECT_EQ(first(), step);
  }
  cudaGraphLaunch(exec, stream_);
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorLaunchFailure);
}

TEST_F(Injections, ADeviceCanBeLostInAnyCall) {
  ASSERT_TRUE(set("FAIL_CALL", "cudaStreamSynchronize:1:cudaErrorUnknown"));
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaErrorUnknown);
  EXPECT_EQ(launch(), cudaErrorUnknown);
  EXPECT_STREQ(cudaGetErrorName(cudaErrorUnknown), "cudaErrorUnknown");
}

TEST_F(Injections, AMachineWithoutDeviceOrDriver) {
  int count = -1, version = -1;
  ASSERT_TRUE(set("DEVICES", "0"));
  EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorNoDevice);
  ASSERT_TRUE(set("DEVICES", "1"));
  for (const char* driver : {"0", "12040"}) {
    ASSERT_TRUE(set("DRIVER", driver));
    EXPECT_EQ(cudaGetDeviceCount(&count), cudaErrorInsufficientDriver);
    EXPECT_EQ(cudaDriverGetVersion(&version), cudaSuccess);
    EXPECT_EQ(version, std::stoi(driver));
    cudaGetLastError();
  }
}

TEST_F(Injections, ADeviceTooOldForTheKernels) {
  ASSERT_TRUE(set("COMPUTE", "75"));
  cudaDeviceProp properties{};
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_EQ(properties.major * 10 + properties.minor, 75);
  EXPECT_STREQ(properties.name, "PTX emulator (compute 7.5)");
  EXPECT_EQ(launch(), cudaErrorNoKernelImageForDevice);
}

TEST_F(Injections, MeaninglessOnesAreRefused) {
  EXPECT_FALSE(set("FAIL_CALL", "cudaMalloc"));
  EXPECT_FALSE(set("FAIL_CALL", ":3"));
  EXPECT_FALSE(set("FAIL_CALL", "cudaMalloc:three"));
  EXPECT_FALSE(set("FAIL_RUN", "add_one:1:cudaErrorOfNoKind"));
  EXPECT_THAT(report(), HasSubstr("cudaErrorOfNoKind"));
  EXPECT_FALSE(set("COMPUTE", "77"));
}

}  // namespace
}  // namespace tramontane::emulator
