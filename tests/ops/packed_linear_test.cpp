// The vectorised Linears of every instruction set that this processor has, over every weight format:
// against FP64 within a derived bound, and bit for bit the same for any number of rows and threads.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "cpu/cpu_features.h"
#include "cpu/linear.h"
#include "cpu/linear_amx.h"
#include "cpu/linear_amx_pack.h"
#include "cpu/linear_planes.h"
#include "cpu/linear_planes_pack.h"
#include "cpu/pack.h"
#include "cpu/pack_common.h"
#include "tests/ops/linear_amx_emulated.h"

namespace tramontane {
namespace {

constexpr std::array<float, 16> kNf4 = {
    -1.0f,       -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
    0.07958030f, 0.16093020f,  0.24611230f,  0.33791524f,  0.44070983f,  0.56261700f,  0.72295684f,  1.0f};

std::array<float, 16> fp4_table() {
  std::array<float, 16> table{};
  const int numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i)
    table[i] = static_cast<float>(i < 8 ? numerators[i] : -numerators[i - 8]) / 192.0f;
  return table;
}

std::array<float, 16> affine_table(int zero) {
  std::array<float, 16> table{};
  for (int i = 0; i < 16; ++i) table[static_cast<size_t>(i)] = static_cast<float>(i - zero);
  return table;
}

QuantLayout nibbles(int group, bool bias, int zero) {
  return {4, group, bias, zero, affine_table(zero)};
}
QuantLayout bytes(int group, bool bias, int zero) {
  return {8, group, bias, zero, {}};
}

struct Format {
  std::string name;
  std::optional<QuantLayout> quant;
  DType dtype;                // of dense weights, or of scales
  double table_rounding = 0;  // relative, where the table is not exact in BF16
};

std::vector<Format> formats() {
  return {{"dense_bf16", {}, DType::bf16},
          {"dense_f16", {}, DType::f16},
          {"dense_f32", {}, DType::f32},
          {"q4_0_g32_f16", nibbles(32, false, 8), DType::f16},
          {"q4_1_g32_f16", nibbles(32, true, 0), DType::f16},
          {"mlx4_g64_bf16", nibbles(64, true, 0), DType::bf16},
          {"mlx4_g128_f32", nibbles(128, true, 0), DType::f32},
          {"affine4_g16_f32", nibbles(16, false, 4), DType::f32},
          {"fp4_g64_f32", QuantLayout{4, 64, false, 0, fp4_table()}, DType::f32},
          {"nf4_g64_f32", QuantLayout{4, 64, false, 0, kNf4}, DType::f32, 0x1p-9},
          {"q8_0_g32_f16", bytes(32, false, 128), DType::f16},
          {"q6_k_g16_f32", bytes(16, false, 32), DType::f32},
          {"mlx8_g64_bf16", bytes(64, true, 0), DType::bf16}};
}

struct Kernel {
  std::string name;
  const Linear* linear;
  bool bf16_weights = false;  // multiplies by quantised weights rounded to BF16
  bool planes = false;        // multiplies affine 4-bit weights by x in integers
};

std::vector<Kernel> kernels() {
  static const AmxLinear amx_emulated(amx_emulated_kernels);
  static const PlanesLinear planes_emulated(amx_emulated, 0, multiply_planes_emulated);
  std::vector<Kernel> all;
  if (cpu_features().avx2) all.push_back({"avx2", &avx2_linear()});
  if (cpu_features().avx512) all.push_back({"avx512", &avx512_linear()});
  if (cpu_features().avx512vnni) all.push_back({"avx512vnni", &avx512vnni_linear(), false, true});
  if (cpu_features().avx512bf16) {
    all.push_back({"plain_avx512bf16", &plain_avx512bf16_linear()});
    all.push_back({"avx512bf16", &avx512bf16_linear(), false, true});
    all.push_back({"amx_emulated", &amx_emulated, true});
    all.push_back({"planes_emulated", &planes_emulated, true, true});
  }
  if (cpu_features().amx) {
    all.push_back({"amxbf16", &plain_amx_linear(), true});
    all.push_back({"amx", &amx_linear(), true, true});
  }
  return all;
}

// A finite, normal binary16 between 2^-8 and 2^-5, of either sign where asked.
uint16_t random_f16(std::mt19937& random, bool negative) {
  const auto sign = static_cast<uint16_t>(negative && random() % 2 ? 0x8000 : 0);
  return static_cast<uint16_t>(sign | (7 + random() % 3) << 10 | random() % 1024);
}

std::vector<std::byte> random_values(std::mt19937& random, size_t count, DType dtype) {
  std::vector<std::byte> out(count * size_of(dtype));
  for (size_t i = 0; i < count; ++i) {
    const uint16_t half = random_f16(random, true);
    const float value = f16_to_float(half) * 0.9f;
    const uint16_t bits = dtype == DType::f16 ? half : float_to_bf16(value);
    if (dtype == DType::f32)
      std::memcpy(out.data() + i * 4, &value, 4);
    else
      std::memcpy(out.data() + i * 2, &bits, 2);
  }
  return out;
}

std::vector<std::byte> random_codes(std::mt19937& random, size_t count) {
  std::vector<std::byte> out(count);
  for (std::byte& code : out) code = static_cast<std::byte>(random());
  return out;
}

// A canonical matrix and the memory that it views.
struct Weights {
  std::vector<std::byte> codes, scales, biases;
  HostMatrix matrix;

  Weights(const Format& format, int64_t n, int64_t k, unsigned seed = 1) {
    std::mt19937 random(seed);
    matrix.n = n;
    matrix.k = k;
    matrix.quant = format.quant;
    (format.quant ? matrix.scale_dtype : matrix.dense_dtype) = format.dtype;
    const MatrixBytes sizes = canonical_bytes(n, k, matrix.dense_dtype, format.quant, matrix.scale_dtype);
    codes = format.quant ? random_codes(random, sizes.codes)
                         : random_values(random, static_cast<size_t>(n * k), format.dtype);
    if (format.quant)
      scales = random_values(random, static_cast<size_t>(n * k / format.quant->group), format.dtype);
    if (format.quant && format.quant->has_bias)
      biases = random_values(random, static_cast<size_t>(n * k / format.quant->group), format.dtype);
    matrix.codes = codes;
    matrix.scales = scales;
    matrix.biases = biases;
  }
};

std::vector<uint16_t> random_rows(int64_t rows, int64_t stride) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> x(static_cast<size_t>(rows * stride));
  for (uint16_t& value : x) value = float_to_bf16(normal(random));
  return x;
}

constexpr float kCanary = -12345.5f;

// y [rows, y_stride] of x [rows, x_stride]; columns past n keep the canary.
std::vector<float> multiply(const Linear& linear, const Matrix& w, const uint16_t* x, int64_t rows,
                            int64_t x_stride, int64_t y_stride, ThreadPool& pool) {
  std::vector<float> y(static_cast<size_t>(rows * y_stride), kCanary);
  auto* x_bytes = reinterpret_cast<std::byte*>(const_cast<uint16_t*>(x));
  linear.multiply({x_bytes, DType::bf16, rows, w.k, x_stride}, w,
                  {reinterpret_cast<std::byte*>(y.data()), DType::f32, rows, w.n, y_stride}, pool);
  return y;
}

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    ASSERT_EQ(std::bit_cast<uint32_t>(a[i]), std::bit_cast<uint32_t>(b[i]))
        << what << ", element " << i << ": " << a[i] << " " << b[i];
}

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

// What linear_planes_tile.h says of a row of x: multiples of 2^exponents[group].
struct RowInIntegers {
  std::vector<int> q, exponents;

  RowInIntegers(const uint16_t* x, int64_t k, int group) {
    for (int64_t first = 0; first < k; first += group) {
      float largest = 0x1p-90f;
      for (int i = 0; i < group; ++i) largest = std::max(largest, std::fabs(bf16_to_float(x[first + i])));
      exponents.push_back(std::ilogb(largest) - 10);
      for (int i = 0; i < group; ++i)
        q.push_back(
            static_cast<int>(std::nearbyint(std::ldexp(bf16_to_float(x[first + i]), -exponents.back()))));
    }
  }
};

// x as the kernel multiplies by it.
std::vector<double> multiplied_x(const Kernel& kernel, const Weights& weights, const uint16_t* x) {
  std::vector<double> values(static_cast<size_t>(weights.matrix.k));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(bf16_to_float(x[i]));
  if (!kernel.planes || !planes_take(weights.matrix.quant)) return values;
  const int group = weights.matrix.quant->group;
  const RowInIntegers row(x, weights.matrix.k, group);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::ldexp(row.q[i], row.exponents[i / static_cast<size_t>(group)]);
  return values;
}

double exact_product(const Kernel& kernel, const Weights& weights, int64_t n, const uint16_t* x) {
  std::vector<float> row(static_cast<size_t>(weights.matrix.k));
  dequantize_row(weights.matrix, n, row);
  const std::vector<double> values = multiplied_x(kernel, weights, x);
  const bool in_integers = kernel.planes && planes_take(weights.matrix.quant);
  const bool round = !in_integers && (kernel.bf16_weights || !weights.matrix.quant);
  double sum = 0;
  for (size_t i = 0; i < row.size(); ++i)
    sum += static_cast<double>(round ? bf16_to_float(float_to_bf16(row[i])) : row[i]) * values[i];
  return sum;
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
    for (size_t format = 0; format < formats().size(); ++format)
      if (!kernels()[kernel].planes || planes_take(formats()[format].quant)) all.emplace_back(kernel, format);
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, PackedLinear, testing::ValuesIn(cases()), case_name);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(PackedLinear);

// The definition of linear_planes_tile.h in plain C++: every kernel gives its bits.
float product_in_integers(const Weights& weights, int64_t n, const uint16_t* x) {
  const HostMatrix& matrix = weights.matrix;
  const QuantLayout& quant = *matrix.quant;
  const RowInIntegers row(x, matrix.k, quant.group);
  const int64_t groups = matrix.k / quant.group;
  const auto value = [&](const std::vector<std::byte>& values, int64_t group) {
    return element_at(values.data(), matrix.scale_dtype, n * groups + group);
  };
  float y = 0;
  for (int64_t g = 0; g < groups; ++g) {
    int sum = 0, sum_x = 0;
    for (int64_t k = g * quant.group; k < (g + 1) * quant.group; ++k) {
      const auto byte = std::to_integer<unsigned>(matrix.codes[static_cast<size_t>((n * matrix.k + k) / 2)]);
      const int q = row.q[static_cast<size_t>(k)];
      sum += (static_cast<int>(byte >> k % 2 * 4 & 15u) - quant.code_zero) * q;
      sum_x += q;
    }
    const int exponent = row.exponents[static_cast<size_t>(g)];
    y = std::fma(std::ldexp(static_cast<float>(sum), exponent), value(weights.scales, g), y);
    if (quant.has_bias)
      y = std::fma(value(weights.biases, g), std::ldexp(static_cast<float>(sum_x), exponent), y);
  }
  return y;
}

TEST(PlanesLinear, GivesTheBitsOfItsDefinition) {
  ThreadPool pool(2);
  for (const Kernel& kernel : kernels())
    for (const Format& format : formats()) {
      if (!kernel.planes || !planes_take(format.quant)) continue;
      const int64_t n = 75, k = 17 * format.quant->group, rows = 70;
      const Weights weights(format, n, k);
      const Matrix packed = kernel.linear->pack(weights.matrix, pool);
      std::vector<uint16_t> x = random_rows(rows, k);
      for (int64_t i = 0; i < k; ++i) {  // groups of one large value, of zeros, of numbers near nothing
        const int64_t group = i / format.quant->group;
        x[static_cast<size_t>(i)] = float_to_bf16(
            group % 4 == 0   ? (i % format.quant->group == 5 ? -3.9e4f : 0.01f * static_cast<float>(i))
            : group % 4 == 1 ? 0.0f
            : group % 4 == 2 ? 1e-38f
                             : 1e30f);
      }
      for (const int64_t count : {1, 2, 3, 5, 16, 17, 33, 70}) {
        const std::vector<float> y = multiply(*kernel.linear, packed, x.data(), count, k, n, pool);
        for (int64_t row = 0; row < count; ++row)
          for (int64_t channel = 0; channel < n; ++channel)
            ASSERT_EQ(std::bit_cast<uint32_t>(y[static_cast<size_t>(row * n + channel)]),
                      std::bit_cast<uint32_t>(
                          product_in_integers(weights, channel, &x[static_cast<size_t>(row * k)])))
                << kernel.name << ", " << format.name << ", row " << row << " of " << count << ", channel "
                << channel;
      }
    }
}

// The largest sum of a group of 128 stays below the 2^22 that the kernels count on, of either sign.
TEST(PlanesLinear, HoldsTheLargestSums) {
  ThreadPool pool(1);
  for (const Kernel& kernel : kernels()) {
    if (!kernel.planes) continue;
    for (const float value : {1.9921875f, -1.9921875f})
      for (const int zero : {0, 15}) {
        const int64_t n = 17, k = 256, rows = 6;
        Weights weights({"g128", nibbles(128, false, zero), DType::f32}, n, k);
        std::fill(weights.codes.begin(), weights.codes.end(), static_cast<std::byte>(zero == 0 ? 0xff : 0));
        const std::vector<uint16_t> x(static_cast<size_t>(rows * k), float_to_bf16(value));
        const Matrix packed = kernel.linear->pack(weights.matrix, pool);
        const std::vector<float> y = multiply(*kernel.linear, packed, x.data(), rows, k, n, pool);
        for (int64_t i = 0; i < rows * n; ++i)
          ASSERT_EQ(y[static_cast<size_t>(i)], product_in_integers(weights, i % n, x.data())) << kernel.name;
      }
  }
}

// A value that is no number, or too large for one, must not come out as an ordinary one.
TEST(PlanesLinear, GivesNoNumberWhereXIsNone) {
  ThreadPool pool(1);
  for (const Kernel& kernel : kernels())
    for (const Format& format : formats()) {
      if (!kernel.planes || !planes_take(format.quant)) continue;
      const int64_t n = 20, k = 3 * format.quant->group, rows = 20;
      const Weights weights(format, n, k);
      const Matrix packed = kernel.linear->pack(weights.matrix, pool);
      for (const uint16_t value : {uint16_t{0x7f80}, uint16_t{0xff80}, uint16_t{0x7fc1}, uint16_t{0x7f00}}) {
        std::vector<uint16_t> x = random_rows(rows, k);
        x[static_cast<size_t>(k + 7)] = value;  // of row 1
        const std::vector<float> y = multiply(*kernel.linear, packed, x.data(), rows, k, n, pool);
        for (int64_t i = 0; i < rows * n; ++i)
          ASSERT_EQ(std::isfinite(y[static_cast<size_t>(i)]), i / n != 1)
              << kernel.name << ", " << format.name;
      }
    }
}

TEST(PlanesLinear, LeavesOtherMatricesToOthers) {
  EXPECT_TRUE(planes_take(nibbles(32, false, 8)));
  EXPECT_TRUE(planes_take(nibbles(128, true, 0)));
  EXPECT_FALSE(planes_take({}));
  EXPECT_FALSE(planes_take(nibbles(16, false, 4)));
  EXPECT_FALSE(planes_take(nibbles(64, true, 8)));
  EXPECT_FALSE(planes_take(bytes(64, true, 0)));
  EXPECT_FALSE(planes_take(QuantLayout{4, 64, false, 0, fp4_table()}));
}

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

TEST(PackPanels, KeepsFourBitWeightsInFourBits) {
  ThreadPool pool(2);
  const Weights weights({"mlx", nibbles(64, true, 0), DType::bf16}, 4096, 4096);
  const size_t canonical = weights.codes.size() + weights.scales.size() + weights.biases.size();
  EXPECT_EQ(pack_panels(weights.matrix, pool).bytes(), canonical + 128);
  EXPECT_EQ(pack_amx(weights.matrix, pool).bytes(), canonical + 64);
  EXPECT_EQ(pack_planes(weights.matrix, pool).bytes(), canonical);
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
}  // namespace tramontane
