// Products by cuBLAS: unpacked weights to the bit, products against FP64, and which products are taken. On
// the emulator cuBLAS is its shim, which computes on the processor and is strict about arguments.
#include "cuda/cublas_gemm.h"

#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/device_error.h"
#include "engine/model/score.h"
#include "tests/cuda/device_tensor.h"
#include "tests/cuda/weights.h"
#include "tests/engine/engine_support.h"

namespace tramontane::cuda {
namespace {

constexpr int32_t kLeastRows = 16;

// Row n as it is unpacked.
Values unpacked_row(const HostMatrix& m, int64_t n) {
  Values row = exact_row(m, n);
  for (float& value : row) value = stored_as_bf16(value);
  return row;
}

class UnpackedFormats : public ::testing::TestWithParam<std::string> {};

TEST_P(UnpackedFormats, AreTheValuesRoundedOnce) {
  const WeightFormat& format = weight_format(GetParam());
  const int64_t group = format.quant ? format.quant->group : 32;
  for (const int64_t k : {3 * group, int64_t{640}}) {
    const HostMatrix host = random_matrix(format, 70, k, 31);
    const Matrix w = upload(host);
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 70}, {32, 38}, {48, 16}}) {
      const DeviceTensor rows(DType::bf16, count, k);
      launch_unpack(nullptr, w, first, rows.view());
      Values want;
      for (int64_t n = first; n < first + count; ++n) {
        const Values row = unpacked_row(host, n);
        want.insert(want.end(), row.begin(), row.end());
      }
      expect_same_bits(rows.download(), want, format.name + " from " + std::to_string(first));
    }
  }
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const WeightFormat& format : weight_formats()) names.push_back(format.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Cublas, UnpackedFormats, ::testing::ValuesIn(format_names()),
                         [](const auto& test) { return test.param; });

// Of the unpacked weights every product with x is exact; at most k sums of FP32 follow (tensor cores may
// truncate: twice the rounding error), and one more with what is there.
void check_product(CublasGemm& gemm, const char* format, int64_t n, int64_t k, int64_t rows, bool add) {
  const HostMatrix host = random_matrix(weight_format(format), n, k, 32);
  const Matrix w = upload(host);
  const Values x = random_values(static_cast<size_t>(rows * k), 33);
  const Values old = add ? random_values(static_cast<size_t>(rows * n), 34, -50, 50) : Values();
  const DeviceTensor d_x(DType::bf16, rows, k, x, k + 8);
  const DeviceTensor d_y(DType::f32, rows, n, old, (n + 3) / 4 * 4 + 12);
  ASSERT_TRUE(gemm.takes(d_x.view(), w, d_y.view()));
  gemm.multiply(d_x.view(), w, d_y.view(), add);

  std::vector<double> want(static_cast<size_t>(rows * n)), bound(want.size());
  for (int64_t o = 0; o < n; ++o) {
    const Values row = unpacked_row(host, o);
    for (int64_t t = 0; t < rows; ++t) {
      const auto at = static_cast<size_t>(t * n + o);
      double sum = add ? old[at] : 0, size = std::abs(sum);
      for (size_t i = 0; i < row.size(); ++i) {
        const double product = double{row[i]} * stored_as_bf16(x[static_cast<size_t>(t * k) + i]);
        sum += product, size += std::abs(product);
      }
      want[at] = sum, bound[at] = static_cast<double>(k + 1) * 2 * kF32Epsilon * size;
    }
  }
  expect_within(d_y.download(), want, bound,
                std::string(format) + " " + std::to_string(n) + " x " + std::to_string(k));
}

TEST(CublasGemm, MatchesFp64) {
  CublasGemm gemm(nullptr, kLeastRows, size_t{1} << 20);
  gemm.reserve();
  for (const char* format : {"bf16", "fp4", "mlx4_g64", "q4_k", "q6_k", "q8_0"}) {
    check_product(gemm, format, 40, 768, 17, false);
    check_product(gemm, format, 37, 512, 30, true);
  }
  check_product(gemm, "fp4", 48, 4096, 16, true);
}

// Scratch for 32 outputs: parts of 32 and of fewer, and of less than a row tile.
TEST(CublasGemm, ComputesLargeMatricesInParts) {
  for (const bool add : {false, true}) {
    CublasGemm gemm(nullptr, kLeastRows, size_t{2} * 32 * 256);
    gemm.reserve();
    check_product(gemm, "q4_0", 150, 256, 20, add);
    check_product(gemm, "bf16", 67, 256, 16, add);
  }
}

TEST(CublasGemm, TakesOnlyWhatItCan) {
  CublasGemm gemm(nullptr, kLeastRows, size_t{1} << 15);
  const Matrix w = upload(random_matrix(weight_format("bf16"), 40, 64, 35));
  const DeviceTensor x(DType::bf16, 20, 64), y(DType::f32, 20, 40);
  EXPECT_FALSE(gemm.takes(x.view(), w, y.view())) << "before there is scratch";
  gemm.reserve();
  EXPECT_TRUE(gemm.takes(x.view(), w, y.view()));
  EXPECT_TRUE(gemm.takes(x.rows(4, 16), w, y.rows(4, 16)));
  EXPECT_FALSE(gemm.takes(x.rows(4, 15), w, y.rows(4, 15))) << "few rows";
  const DeviceTensor odd_x(DType::bf16, 20, 64, {}, 67), odd_y(DType::f32, 20, 40, {}, 41);
  EXPECT_FALSE(gemm.takes(odd_x.view(), w, y.view())) << "rows of x without alignment";
  EXPECT_FALSE(gemm.takes(x.view(), w, odd_y.view())) << "rows of y without alignment";
  const Matrix wide = upload(random_matrix(weight_format("bf16"), 16, 2048, 36));
  const DeviceTensor wide_x(DType::bf16, 20, 2048), y16(DType::f32, 20, 16);
  EXPECT_FALSE(gemm.takes(wide_x.view(), wide, y16.view())) << "scratch for 8 outputs";
}

TEST(CublasGemm, NamesTheCallThatFailed) {
  CublasGemm gemm(nullptr, kLeastRows, size_t{1} << 20);
  gemm.reserve();
  const Matrix w = upload(random_matrix(weight_format("bf16"), 40, 64, 37));
  const DeviceTensor x(DType::bf16, 20, 64), y(DType::f32, 20, 40);
  TensorView narrow = y.view();
  narrow.row_stride = 36;  // less than a row: cuBLAS refuses its ldc
  try {
    gemm.multiply(x.view(), w, narrow, false);
    FAIL() << "took an ldc of 36 for 40 rows of C";
  } catch (const DeviceError& error) {
    EXPECT_EQ(std::string(error.what()).find("cublasGemmEx for linear: "), 0u) << error.what();
  }
}

// --- the whole backend

std::unique_ptr<Backend> make_backend(int32_t cublas_rows) {
  return make_cuda_backend({.memory_bytes = uint64_t{512} << 20, .cublas_rows = cublas_rows});
}

std::vector<float> logits_of(Backend& backend, const std::vector<int32_t>& text, int32_t chunk) {
  std::vector<float> result;
  const std::vector<std::vector<int32_t>> texts = {text};
  score_all(backend, tiny_checkpoint(), texts, chunk, [&](size_t, int32_t, std::span<const float> row) {
    result.insert(result.end(), row.begin(), row.end());
  });
  return result;
}

TEST(CublasBackend, PlansItsMemory) {
  const StepLimits limits{.max_tokens = 512, .max_sequences = 4, .max_kv = 512};
  const AttentionShape shape{.n_heads = 8, .n_kv_heads = 2, .head_dim = 32};
  EXPECT_EQ(make_backend(kCublasRows)->step_memory(limits, shape).scratch -
                make_backend(0)->step_memory(limits, shape).scratch,
            kCublasScratchBytes + kCublasWorkspaceBytes);
}

// Fewer rows than asked for: every bit is that of our own products.
TEST(CublasBackend, LeavesShortStepsAlone) {
  const std::vector<int32_t> text = make_prompt(41, 20, 32768);
  expect_same_bits(logits_of(*make_backend(24), text, 20), logits_of(*make_backend(0), text, 20), "20 rows");
}

// Other sums, so other bits, but the same model: BF16 keeps 8 bits of what each layer hands on.
TEST(CublasBackend, ComputesTheSameModel) {
  const std::vector<int32_t> text = make_prompt(42, 40, 32768);
  const std::vector<float> own = logits_of(*make_backend(0), text, 40),
                           other = logits_of(*make_backend(24), text, 40);
  ASSERT_EQ(own.size(), other.size());
  double sum = 0, difference = 0;
  for (size_t i = 0; i < own.size(); ++i) {
    sum += double{own[i]} * own[i];
    difference += (double{own[i]} - other[i]) * (double{own[i]} - other[i]);
  }
  EXPECT_GT(difference, 0) << "not a product was cuBLAS's";
  EXPECT_LT(std::sqrt(difference / sum), 0.02);
}

}  // namespace
}  // namespace tramontane::cuda
