// The Linears that multiply in integers: planes (linear_planes_tile.h) and words (linear_tile.h), bit for bit
// as they are defined.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "cpu/linear_planes.h"
#include "cpu/linear_planes_pack.h"
#include "cpu/pack_common.h"
#include "tests/ops/packed_cases.h"

namespace tramontane::packed {
namespace {

// What a code stands for, times 2^shift: FP4's entries are integers / 192, where the FP32 scales take that.
struct IntegerWeights {
  int shift = 0;
  float divisor = 1;
  std::array<int, 16> table{};
  int zero = 0;

  IntegerWeights(const QuantLayout& quant, DType scale_dtype) {
    if (quant.bits != 4) {
      zero = quant.code_zero;
      return;
    }
    if (quant.table == fp4_table() && scale_dtype == DType::f32) divisor = 192;
    const auto entry = [&](size_t i) { return quant.table[i] * divisor; };
    float largest = 0;
    for (size_t i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(entry(i)));
    while (std::ldexp(largest, shift + 1) <= 8192) ++shift;
    for (size_t i = 0; i < 16; ++i) table[i] = static_cast<int>(std::nearbyint(std::ldexp(entry(i), shift)));
  }

  int at(const HostMatrix& matrix, int64_t index) const {
    const int bits = matrix.quant->bits;
    const auto byte =
        std::to_integer<unsigned>(matrix.codes[static_cast<size_t>(bits == 4 ? index / 2 : index)]);
    if (bits != 4) return static_cast<int>(byte) - zero;
    return table[byte >> index % 2 * 4 & 15u] - zero;
  }
};

// The definition of vnni_word_kernels in plain C++.
float product_in_words(const Weights& weights, int64_t n, const uint16_t* x) {
  const HostMatrix& matrix = weights.matrix;
  const QuantLayout& quant = *matrix.quant;
  const RowInIntegers row = RowInIntegers::words(x, matrix);
  const IntegerWeights integers(quant, matrix.scale_dtype);
  const int64_t groups = matrix.k / quant.group;
  const auto value = [&](const std::vector<std::byte>& values, int64_t group) {
    return element_at(values.data(), matrix.scale_dtype, n * groups + group);
  };
  float y = 0;
  for (int64_t g = 0; g < groups; ++g) {
    int sum = 0, sum_x = 0;
    for (int64_t k = g * quant.group; k < (g + 1) * quant.group; ++k) {
      const int q = row.q[static_cast<size_t>(k)];
      sum += integers.at(matrix, n * matrix.k + k) * q;
      sum_x += q;
    }
    const int exponent = row.exponents[static_cast<size_t>(g)];
    y = std::fma(std::ldexp(static_cast<float>(sum), exponent - integers.shift),
                 value(weights.scales, g) / integers.divisor, y);
    if (quant.has_bias)
      y = std::fma(value(weights.biases, g), std::ldexp(static_cast<float>(sum_x), exponent), y);
  }
  return y;
}

// That of linear_planes_tile.h.
float product_in_planes(const Weights& weights, int64_t n, const uint16_t* x) {
  const int64_t k = weights.matrix.k, block_k = planes_block_k(k, weights.matrix.quant->group);
  const RowInIntegers row = RowInIntegers::planes(x, weights.matrix);
  const ChannelInIntegers channel(weights.matrix, n);
  float y = 0;
  for (int64_t first = 0; first < k; first += block_k) {
    int64_t sum = 0;
    for (int64_t i = first; i < std::min(first + block_k, k); ++i)
      sum += int64_t{channel.weights[static_cast<size_t>(i)]} * row.q[static_cast<size_t>(i)];
    const auto block = static_cast<size_t>(first / block_k);
    y = std::fma(std::ldexp(static_cast<float>(sum >> 8), row.exponents[block] + 8),
                 std::ldexp(1.0f, channel.exponents[block]), y);
  }
  return y;
}

// Every kernel gives the bits of its definition.
float product_in_integers(const Kernel& kernel, const Weights& weights, int64_t n, const uint16_t* x) {
  return in_planes(kernel, weights.matrix.quant) ? product_in_planes(weights, n, x)
                                                 : product_in_words(weights, n, x);
}

TEST(IntegerLinear, GivesTheBitsOfItsDefinition) {
  ThreadPool pool(2);
  for (const Kernel& kernel : kernels())
    for (const Format& format : formats()) {
      if (!in_integers(kernel, format.quant)) continue;
      const int64_t n = 75, k = 600 / format.quant->group * format.quant->group, rows = 70;
      const Weights weights(format, n, k);
      const Matrix packed = kernel.linear->pack(weights.matrix, pool);
      std::vector<uint16_t> x = random_rows(rows, k);
      for (int64_t i = 0; i < k; ++i) {  // groups of one large value, of zeros, of numbers near nothing
        const int64_t group = i / format.quant->group;
        x[static_cast<size_t>(i)] = float_to_bf16(
            group % 4 == 0   ? (i % format.quant->group == 5 ? -3.9e4f : 0.01f * static_cast<float>(i))
            : group % 4 == 1 ? 0.0f
            : group % 4 == 2 ? 1e-38f
                             : 1e28f);
      }
      for (const int64_t count : {1, 2, 3, 5, 16, 17, 33, 70}) {
        const std::vector<float> y = multiply(*kernel.linear, packed, x.data(), count, k, n, pool);
        for (int64_t row = 0; row < count; ++row)
          for (int64_t channel = 0; channel < n; ++channel)
            ASSERT_EQ(std::bit_cast<uint32_t>(y[static_cast<size_t>(row * n + channel)]),
                      std::bit_cast<uint32_t>(
                          product_in_integers(kernel, weights, channel, &x[static_cast<size_t>(row * k)])))
                << kernel.name << ", " << format.name << ", row " << row << " of " << count << ", channel "
                << channel;
      }
    }
}

// The largest sums of a group of 128 in words, and of a block of 512 in planes, of either sign.
TEST(IntegerLinear, HoldsTheLargestSums) {
  ThreadPool pool(1);
  const std::vector<Format> largest = {{"g128_from_0", nibbles(128, false, 0), DType::f32},
                                       {"g128_to_15", nibbles(128, false, 15), DType::f32},
                                       {"fp4_g128", QuantLayout{4, 128, false, 0, fp4_table()}, DType::f32},
                                       {"ones_g128", QuantLayout{4, 128, false, 0, {-1, 1}}, DType::f32},
                                       {"bytes_g128", bytes(128, false, 0), DType::f16}};
  for (const Kernel& kernel : kernels())
    for (const Format& format : largest) {
      if (!in_integers(kernel, format.quant)) continue;
      for (const float value : {1.9921875f, -1.9921875f})
        for (const int code : {0x00, 0x11, 0xff}) {
          const int64_t n = 17, k = 1024, rows = 6;
          Weights weights(format, n, k);
          std::fill(weights.codes.begin(), weights.codes.end(), static_cast<std::byte>(code));
          const std::vector<uint16_t> x(static_cast<size_t>(rows * k), float_to_bf16(value));
          const Matrix packed = kernel.linear->pack(weights.matrix, pool);
          const std::vector<float> y = multiply(*kernel.linear, packed, x.data(), rows, k, n, pool);
          for (int64_t i = 0; i < rows * n; ++i)
            ASSERT_EQ(y[static_cast<size_t>(i)], product_in_integers(kernel, weights, i % n, x.data()))
                << kernel.name << ", " << format.name << ", code " << code;
        }
    }
}

// A value that is no number, or too large for one, must not come out as an ordinary one.
TEST(IntegerLinear, GivesNoNumberWhereXIsNone) {
  ThreadPool pool(1);
  for (const Kernel& kernel : kernels())
    for (const Format& format : formats()) {
      if (!in_integers(kernel, format.quant)) continue;
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

// What rounding scales and biases costs: nothing where they are multiples of 2^f, else at most 8 of 2^f,
// which is a 2,000th of the block's largest weight.
TEST(IntegerLinear, PlanesKeepWeightsAsTheySay) {
  for (const Format& format : formats()) {
    if (!planes_take(format.quant)) continue;
    const Weights weights(format, 9, 1152);
    const HostMatrix& matrix = weights.matrix;
    const int64_t group = format.quant->group, groups = matrix.k / group;
    for (int64_t n = 0; n < matrix.n; ++n) {
      const ChannelInIntegers channel(matrix, n);
      std::vector<float> row(static_cast<size_t>(matrix.k));
      dequantize_row(matrix, n, row);
      for (int64_t k = 0; k < matrix.k; ++k) {
        const int exponent =
            channel.exponents[static_cast<size_t>(k / planes_block_k(matrix.k, static_cast<int>(group)))];
        const auto whole = [&](const std::vector<std::byte>& values) {
          if (values.empty()) return true;
          const float value = element_at(values.data(), matrix.scale_dtype, n * groups + k / group);
          return std::ldexp(value, -exponent) == std::nearbyint(std::ldexp(value, -exponent));
        };
        const double unit = std::ldexp(1.0, exponent),
                     weight = static_cast<double>(row[static_cast<size_t>(k)]);
        const bool exact = whole(weights.scales) && whole(weights.biases);
        ASSERT_LT(std::abs(channel.weights[static_cast<size_t>(k)]), 32768);
        ASSERT_LE(std::fabs(channel.weights[static_cast<size_t>(k)] * unit - weight),
                  (exact ? 0 : 8 * unit) + std::fabs(weight) * 0x1p-23)
            << format.name << ", channel " << n << ", k " << k;
      }
    }
  }
}

// Scales that are rounded up where 15 of them nearly fill 16 bits.
TEST(IntegerLinear, PlanesLeaveRoomForRounding) {
  ThreadPool pool(1);
  for (const Kernel& kernel : kernels()) {
    if (!in_planes(kernel, nibbles(32, false, 0))) continue;
    const int64_t n = 16, k = 64, rows = 6;
    Weights weights({"g32", nibbles(32, false, 0), DType::f32}, n, k);
    std::fill(weights.codes.begin(), weights.codes.end(), std::byte{0xff});
    const float scale = 2184.52f;
    for (size_t i = 0; i < weights.scales.size(); i += sizeof scale)
      std::memcpy(&weights.scales[i], &scale, 4);
    const Matrix packed = kernel.linear->pack(weights.matrix, pool);
    const std::vector<uint16_t> x(static_cast<size_t>(rows * k), float_to_bf16(1));
    for (const float y : multiply(*kernel.linear, packed, x.data(), rows, k, n, pool))
      ASSERT_NEAR(y, 64 * 15 * scale, 64 * 15) << kernel.name;
  }
}

// A scale that is no number must not come out as an ordinary product either.
TEST(IntegerLinear, PlanesGiveNoNumberWhereAScaleIsNone) {
  ThreadPool pool(1);
  for (const Kernel& kernel : kernels()) {
    if (!in_planes(kernel, nibbles(32, false, 8))) continue;
    const int64_t n = 20, k = 96, rows = 20;
    Weights weights({"g32", nibbles(32, false, 8), DType::f32}, n, k);
    for (const float scale : {INFINITY, -INFINITY, NAN}) {
      std::memcpy(&weights.scales[(3 * 3 + 1) * sizeof scale], &scale, sizeof scale);  // of channel 3
      const Matrix packed = kernel.linear->pack(weights.matrix, pool);
      const std::vector<float> y =
          multiply(*kernel.linear, packed, random_rows(rows, k).data(), rows, k, n, pool);
      for (int64_t i = 0; i < rows * n; ++i)
        ASSERT_EQ(std::isfinite(y[static_cast<size_t>(i)]), i % n != 3) << kernel.name << ", scale " << scale;
    }
  }
}

TEST(IntegerLinear, PlanesCutKIntoFewAndEvenBlocks) {
  EXPECT_EQ(planes_block_k(32, 32), 64);
  EXPECT_EQ(planes_block_k(512, 128), 512);
  EXPECT_EQ(planes_block_k(576, 32), 320);
  EXPECT_EQ(planes_block_k(1152, 128), 384);
  EXPECT_EQ(planes_block_k(4096, 64), 512);
  for (int64_t k = 128; k < 20000; k += 128) EXPECT_LE(planes_block_k(k, 128), kMostBlockK);
}

TEST(IntegerLinear, LeavesOtherMatricesToOthers) {
  EXPECT_TRUE(planes_take(nibbles(32, false, 8)));
  EXPECT_TRUE(planes_take(nibbles(128, true, 0)));
  EXPECT_FALSE(planes_take({}));
  EXPECT_FALSE(planes_take(nibbles(16, false, 4)));
  EXPECT_FALSE(planes_take(nibbles(64, true, 8)));
  EXPECT_FALSE(planes_take(bytes(64, true, 0)));
  EXPECT_FALSE(planes_take(QuantLayout{4, 64, false, 0, fp4_table()}));
}

}  // namespace
}  // namespace tramontane::packed
