// The vectorised Linears of every instruction set that this processor has, over every weight format:
// against FP64 within a derived bound, and bit for bit the same for any number of rows and threads.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cpu/cpu_features.h"
#include "cpu/linear.h"
#include "cpu/linear_amx.h"
#include "cpu/linear_amx_pack.h"
#include "cpu/linear_planes.h"
#include "cpu/linear_planes_pack.h"
#include "cpu/pack.h"
#include "cpu/pack_common.h"
#include "tests/ops/linear_amx_emulated.h"
#include "tests/ops/packed_cases.h"

namespace tramontane::packed {
namespace {

// Sums of magnitudes as the kernels form them: |table * scale| and |bias| apart. dequantize_row is the same
// matrix without its part.
struct Magnitudes {
  double weights = 0, total = 0;
};

Magnitudes magnitudes(const Weights& weights, int64_t n, const uint16_t* x) {
  HostMatrix unbiased = weights.matrix;
  if (unbiased.quant) unbiased.quant->has_bias = false;
  unbiased.biases = {};
  const int64_t k = unbiased.k;
  std::vector<float> plain(static_cast<size_t>(k)), full(static_cast<size_t>(k));
  dequantize_row(unbiased, n, plain);
  dequantize_row(weights.matrix, n, full);
  Magnitudes sum;
  for (size_t i = 0; i < static_cast<size_t>(k); ++i) {
    const double magnitude = std::fabs(static_cast<double>(bf16_to_float(x[i])));
    sum.weights += magnitude * std::fabs(static_cast<double>(plain[i]));
    sum.total += magnitude * (std::fabs(static_cast<double>(plain[i])) +
                              std::fabs(static_cast<double>(full[i] - plain[i])));
  }
  return sum;
}

// x as the kernel multiplies by it.
std::vector<double> multiplied_x(const Kernel& kernel, const HostMatrix& matrix, const uint16_t* x) {
  std::vector<double> values(static_cast<size_t>(matrix.k));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(bf16_to_float(x[i]));
  if (!in_integers(kernel, matrix.quant)) return values;
  const bool planes = in_planes(kernel, matrix.quant);
  const auto block =
      static_cast<size_t>(planes ? planes_block_k(matrix.k, matrix.quant->group) : matrix.quant->group);
  const RowInIntegers row = planes ? RowInIntegers::planes(x, matrix) : RowInIntegers::words(x, matrix);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::ldexp(row.q[i], row.exponents[i / block]);
  return values;
}

// A channel's weights as the kernel multiplies by them.
std::vector<double> multiplied_weights(const Kernel& kernel, const HostMatrix& matrix, int64_t n) {
  std::vector<float> row(static_cast<size_t>(matrix.k));
  dequantize_row(matrix, n, row);
  std::vector<double> values(row.begin(), row.end());
  if (in_planes(kernel, matrix.quant)) {
    const ChannelInIntegers channel(matrix, n);
    const auto block = static_cast<size_t>(planes_block_k(matrix.k, matrix.quant->group));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = std::ldexp(channel.weights[i], channel.exponents[i / block]);
  } else if (!in_integers(kernel, matrix.quant) && (kernel.bf16_weights || !matrix.quant)) {
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<double>(bf16_to_float(float_to_bf16(row[i])));
  }
  return values;
}

double exact_product(const Kernel& kernel, const Weights& weights, int64_t n, const uint16_t* x) {
  const std::vector<double> row = multiplied_weights(kernel, weights.matrix, n);
  const std::vector<double> values = multiplied_x(kernel, weights.matrix, x);
  return std::inner_product(row.begin(), row.end(), values.begin(), 0.0);
}

// (kernel, format): every combination is one test.
class PackedLinear : public testing::TestWithParam<std::tuple<size_t, size_t>> {
 protected:
  Kernel kernel() const { return kernels()[std::get<0>(GetParam())]; }
  const Linear& linear() const { return *kernel().linear; }
  Format format() const { return formats()[std::get<1>(GetParam())]; }
  // The smallest k of this format, and one past k blocks of the kernels (1,024) by a group that fills
  // nothing.
  int64_t small_k() const { return format().quant ? format().quant->group : 2; }
  int64_t long_k() const { return 2048 + 3 * small_k(); }
  ThreadPool pool_{1};
};

// Each of k products and sums is rounded once (2^-24 of at most the sum of magnitudes), folds and
// dequantisation a few times more.
TEST_P(PackedLinear, IsWithinTheRoundingBoundOfFp64) {
  for (const int64_t k : {small_k(), 3 * small_k(), int64_t{768}, long_k()}) {
    for (const int64_t n : {1, 15, 16, 33, 71}) {
      const Weights weights(format(), n, k);
      const Matrix packed = linear().pack(weights.matrix, pool_);
      const int64_t rows = 7;
      const std::vector<uint16_t> x = random_rows(rows, k);
      const std::vector<float> y = multiply(linear(), packed, x.data(), rows, k, n, pool_);
      for (int64_t row = 0; row < rows; ++row)
        for (int64_t channel = 0; channel < n; ++channel) {
          const Magnitudes sum = magnitudes(weights, channel, &x[static_cast<size_t>(row * k)]);
          const double table_rounding = kernel().bf16_weights ? 0 : format().table_rounding;
          const double bound =
              static_cast<double>(k + 8) * 0x1p-24 * sum.total + table_rounding * sum.weights;
          const double error = static_cast<double>(y[static_cast<size_t>(row * n + channel)]) -
                               exact_product(kernel(), weights, channel, &x[static_cast<size_t>(row * k)]);
          ASSERT_LE(std::fabs(error), bound)
              << "row " << row << ", channel " << channel << " of n " << n << ", k " << k;
        }
    }
  }
}

TEST_P(PackedLinear, GivesARowTheSameBitsAmongAnyNumberOfRows) {
  const int64_t n = 100, k = long_k(), most = 70;
  const Weights weights(format(), n, k);
  const Matrix packed = linear().pack(weights.matrix, pool_);
  const std::vector<uint16_t> x = random_rows(most, k);
  std::vector<float> alone;
  for (int64_t row = 0; row < most; ++row) {
    const std::vector<float> y = multiply(linear(), packed, &x[static_cast<size_t>(row * k)], 1, k, n, pool_);
    alone.insert(alone.end(), y.begin(), y.end());
  }
  for (int64_t rows = 2; rows <= most; rows += rows < 20 ? 1 : 7) {
    const std::vector<float> y = multiply(linear(), packed, x.data(), rows, k, n, pool_);
    expect_same_bits(y, {alone.begin(), alone.begin() + rows * n}, std::to_string(rows) + " rows");
  }
}

// More rows than any kernel takes in one walk (AMX: 512), and k interrupted.
TEST_P(PackedLinear, GivesARowTheSameBitsAmongHundreds) {
  const int64_t n = 33, k = 2048 + 5 * small_k(), rows = 530;
  const Weights weights(format(), n, k);
  const Matrix packed = linear().pack(weights.matrix, pool_);
  const std::vector<uint16_t> x = random_rows(rows, k);
  const std::vector<float> y = multiply(linear(), packed, x.data(), rows, k, n, pool_);
  for (const int64_t row : {0, 15, 16, 31, 500, 511, 512, 527, 528, 529}) {
    const auto from = y.begin() + row * n;
    expect_same_bits({from, from + n},
                     multiply(linear(), packed, &x[static_cast<size_t>(row * k)], 1, k, n, pool_),
                     "row " + std::to_string(row));
  }
}

// The borders of the walks for many rows: groups of panels and an odd one left, an odd tile of rows, K that
// ends within a block, more of x than a walk for few rows takes (AMX), rows shared out among threads.
TEST_P(PackedLinear, GivesARowTheSameBitsAtTheBordersOfWalks) {
  struct Case {
    int64_t n, k, rows;
    int threads;
  };
  for (const auto& [n, k, rows, threads] : {Case{16 * 18 + 3, 1024 + small_k(), 70, 1},
                                            {16 * 9, 2048, 81, 2},
                                            {33, 8192 + small_k(), 64, 1},
                                            {20, 4 * small_k(), 100, 3},
                                            {17, 1024 + small_k(), 48, 3}}) {
    const Weights weights(format(), n, k);
    ThreadPool pool(threads);
    const Matrix packed = linear().pack(weights.matrix, pool);
    const std::vector<uint16_t> x = random_rows(rows, k);
    const std::vector<float> y = multiply(linear(), packed, x.data(), rows, k, n, pool);
    for (const int64_t row : {int64_t{0}, int64_t{15}, int64_t{16}, rows / 2, rows - 2, rows - 1}) {
      const auto from = y.begin() + row * n;
      expect_same_bits({from, from + n},
                       multiply(linear(), packed, &x[static_cast<size_t>(row * k)], 1, k, n, pool_),
                       "row " + std::to_string(row) + " of " + std::to_string(rows));
    }
  }
}

TEST_P(PackedLinear, GivesTheSameBitsOnAnyNumberOfThreads) {
  for (const int64_t n : {17, 100, 250}) {  // 2 panels on 3 threads: rows are shared out as well
    const int64_t k = long_k();
    const Weights weights(format(), n, k);
    const Matrix packed = linear().pack(weights.matrix, pool_);
    for (const int64_t rows : {1, 5, 33}) {
      const std::vector<uint16_t> x = random_rows(rows, k);
      const std::vector<float> one = multiply(linear(), packed, x.data(), rows, k, n, pool_);
      for (int threads = 2; threads <= 4; ++threads) {
        ThreadPool pool(threads);
        const Matrix packed_by_all = linear().pack(weights.matrix, pool);
        expect_same_bits(multiply(linear(), packed_by_all, x.data(), rows, k, n, pool), one,
                         std::to_string(threads) + " threads");
      }
    }
  }
}

TEST_P(PackedLinear, ReadsAndWritesStridedRowsAndNothingElse) {
  const int64_t n = 41, k = 3 * small_k(), rows = 9, x_stride = k + 3, y_stride = n + 5;
  const Weights weights(format(), n, k);
  const Matrix packed = linear().pack(weights.matrix, pool_);
  const std::vector<uint16_t> x = random_rows(rows, x_stride);
  const std::vector<float> y = multiply(linear(), packed, x.data(), rows, x_stride, y_stride, pool_);
  for (int64_t row = 0; row < rows; ++row) {
    const auto from = y.begin() + row * y_stride;
    expect_same_bits({from, from + n},
                     multiply(linear(), packed, &x[static_cast<size_t>(row * x_stride)], 1, k, n, pool_),
                     "strided");
    for (int64_t i = n; i < y_stride; ++i) ASSERT_EQ(from[i], kCanary);
  }
}

TEST_P(PackedLinear, ReadsARowBack) {
  const int64_t n = 35, k = 5 * small_k();
  const Weights weights(format(), n, k);
  const Matrix packed = linear().pack(weights.matrix, pool_);
  std::vector<float> expected(static_cast<size_t>(k)), row(static_cast<size_t>(k));
  for (int64_t i = 0; i < n; ++i) {
    dequantize_row(weights.matrix, i, expected);
    linear().read_row(packed, i, row.data());
    for (size_t j = 0; j < row.size(); ++j) {
      const float value = format().quant ? expected[j] : bf16_to_float(float_to_bf16(expected[j]));
      ASSERT_NEAR(row[j], value, std::fabs(value) * 0x1p-22f) << "row " << i << ", k " << j;
    }
  }
}

TEST_P(PackedLinear, TellsWhatAMatrixWillTake) {
  for (const int64_t n : {1, 16, 35}) {
    const Weights weights(format(), n, 3 * small_k());
    EXPECT_EQ(linear().packed_bytes(weights.matrix), linear().pack(weights.matrix, pool_).bytes());
  }
}

TEST(ScalarLinear, TellsWhatAMatrixWillTake) {
  ThreadPool pool(1);
  for (const Format& format : formats()) {
    const Weights weights(format, 5, format.quant ? format.quant->group : 6);
    for (const Linear* linear : {&scalar_linear(), &scalar_f32_linear()})
      EXPECT_EQ(linear->packed_bytes(weights.matrix), linear->pack(weights.matrix, pool).bytes())
          << format.name;
  }
}

std::string case_name(const testing::TestParamInfo<std::tuple<size_t, size_t>>& info) {
  return kernels()[std::get<0>(info.param)].name + "_" + formats()[std::get<1>(info.param)].name;
}

// What a kernel leaves to another one is tested there.
std::vector<std::tuple<size_t, size_t>> cases() {
  std::vector<std::tuple<size_t, size_t>> all;
  for (size_t kernel = 0; kernel < kernels().size(); ++kernel)
    for (size_t format = 0; format < formats().size(); ++format) {
      const Kernel of = kernels()[kernel];
      if (!of.leaves_rest || in_integers(of, formats()[format].quant)) all.emplace_back(kernel, format);
    }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, PackedLinear, testing::ValuesIn(cases()), case_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PackedLinear);

template <class Pack>
std::string error_of_odd_k(const Pack& pack) {
  ThreadPool pool(1);
  const Weights weights({"dense", {}, DType::bf16}, 4, 7);
  try {
    pack(weights.matrix, pool);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST(PackPanels, NamesAnOddK) {
  EXPECT_EQ(error_of_odd_k(pack_panels), "weight matrix: k is 7, the vector kernels need an even one");
  EXPECT_EQ(error_of_odd_k(pack_amx), "weight matrix: k is 7, the AMX kernels need an even one");
}

TEST(PackPanels, KeepsCodesInTheirBits) {
  ThreadPool pool(2);
  const Weights weights({"mlx", nibbles(64, true, 0), DType::bf16}, 4096, 4096);
  const size_t canonical = weights.codes.size() + weights.scales.size() + weights.biases.size();
  EXPECT_EQ(pack_panels(weights.matrix, pool).bytes(), canonical + 128);
  EXPECT_EQ(pack_amx(weights.matrix, pool).bytes(), canonical + 64);
  EXPECT_EQ(pack_planes(weights.matrix, pool).bytes(), canonical + 4096 * 4096 / 512);  // exponents
  const Weights six({"mlx6", sixes(64, true, 0), DType::bf16}, 4096, 4096);
  const size_t packed = 4096 * 4096 / 8 * 6 + six.scales.size() + six.biases.size();
  EXPECT_EQ(pack_panels(six.matrix, pool).bytes(), packed + 128);
  EXPECT_EQ(pack_amx(six.matrix, pool).bytes(), packed + 64);
}

// The emulation does what the manual says; this is where it meets the instructions.
TEST(AmxLinear, GivesTheBitsOfTheEmulatedTiles) {
  if (!cpu_features().amx)
    GTEST_SKIP() << "this processor has no AMX-BF16, or Linux does not grant its tiles: AMX was tested over "
                    "emulated tiles alone"
                 << (cpu_features().avx512bf16 ? "" : ", and not even that without AVX-512 BF16");
  const AmxLinear emulated(amx_emulated_kernels);
  ThreadPool pool(2);
  for (const Format& format : formats()) {
    const int64_t n = 75, k = format.quant ? 17 * format.quant->group : 1094;
    const Weights weights(format, n, k);
    const Matrix packed = plain_amx_linear().pack(weights.matrix, pool);
    for (const int64_t rows : {1, 5, 16, 17, 70}) {
      const std::vector<uint16_t> x = random_rows(rows, k);
      expect_same_bits(multiply(plain_amx_linear(), packed, x.data(), rows, k, n, pool),
                       multiply(emulated, packed, x.data(), rows, k, n, pool), format.name);
    }
  }
}

}  // namespace
}  // namespace tramontane::packed
