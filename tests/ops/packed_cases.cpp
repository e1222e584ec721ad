#include "tests/ops/packed_cases.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "cpu/cpu_features.h"
#include "cpu/linear_amx.h"
#include "cpu/linear_amx_pack.h"
#include "cpu/linear_planes.h"
#include "cpu/linear_planes_pack.h"
#include "cpu/pack.h"
#include "cpu/pack_common.h"
#include "tests/ops/linear_amx_emulated.h"

namespace tramontane::packed {
namespace {

constexpr std::array<float, 16> kNf4 = {
    -1.0f,       -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f, 0.0f,
    0.07958030f, 0.16093020f,  0.24611230f,  0.33791524f,  0.44070983f,  0.56261700f,  0.72295684f,  1.0f};

std::array<float, 16> affine_table(int zero) {
  std::array<float, 16> table{};
  for (int i = 0; i < 16; ++i) table[static_cast<size_t>(i)] = static_cast<float>(i - zero);
  return table;
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

std::vector<std::byte> random_codes(std::mt19937& random, size_t count, int bits) {
  std::vector<std::byte> out(count);
  for (std::byte& code : out) code = static_cast<std::byte>(random()) & std::byte(bits == 6 ? 63 : 255);
  return out;
}

}  // namespace

std::array<float, 16> fp4_table() {
  std::array<float, 16> table{};
  const int numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i)
    table[i] = static_cast<float>(i < 8 ? numerators[i] : -numerators[i - 8]) / 192.0f;
  return table;
}

QuantLayout nibbles(int group, bool bias, int zero) {
  return {4, group, bias, zero, affine_table(zero)};
}
QuantLayout sixes(int group, bool bias, int zero) {
  return {6, group, bias, zero, {}};
}
QuantLayout bytes(int group, bool bias, int zero) {
  return {8, group, bias, zero, {}};
}

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
          {"bytes_g16_f32", bytes(16, false, 32), DType::f32},
          {"q6_k_g16_f32", sixes(16, false, 32), DType::f32},
          {"q5_0_g32_f16", sixes(32, false, 16), DType::f16},
          {"mlx6_g64_bf16", sixes(64, true, 0), DType::bf16},
          {"mlx6_g128_f32", sixes(128, true, 0), DType::f32},
          {"mlx8_g64_bf16", bytes(64, true, 0), DType::bf16}};
}

std::vector<Kernel> kernels() {
  static const AmxLinear amx_emulated(amx_emulated_kernels);
  static const PlanesLinear planes_emulated(amx_emulated, 0, multiply_planes_emulated);
  const CpuFeatures& features = cpu_features();
  std::vector<Kernel> all;
  const auto add = [&](const char* name, const Linear& linear) -> Kernel& {
    return all.emplace_back(Kernel{.name = name, .linear = &linear});
  };
  if (features.avx2) add("avx2", avx2_linear()).words = true;
  if (features.avx512) add("avx512", avx512_linear()).words = true;
  if (features.avx512vnni) {
    Kernel& plain = add("plain_avx512vnni", plain_avx512vnni_linear());
    plain.words = plain.leaves_rest = true;
    Kernel& vnni = add("avx512vnni", avx512vnni_linear());
    vnni.planes = vnni.words = vnni.leaves_rest = true;
  }
  if (features.avx512bf16) {
    add("plain_avx512bf16", plain_avx512bf16_linear());
    Kernel& bf16 = add("avx512bf16", avx512bf16_linear());
    bf16.planes = bf16.leaves_rest = true;
    add("amx_emulated", amx_emulated).bf16_weights = true;
    Kernel& planes = add("planes_emulated", planes_emulated);
    planes.planes = planes.leaves_rest = true;
  }
  if (features.amx) {
    add("amxbf16", plain_amx_linear()).bf16_weights = true;
    Kernel& amx = add("amx", amx_linear());
    amx.planes = amx.leaves_rest = true;
  }
  return all;
}

bool in_planes(const Kernel& kernel, const std::optional<QuantLayout>& quant) {
  return kernel.planes && planes_take(quant);
}
bool in_words(const Kernel& kernel, const std::optional<QuantLayout>& quant) {
  return kernel.words && quant && !in_planes(kernel, quant);
}
bool in_integers(const Kernel& kernel, const std::optional<QuantLayout>& quant) {
  return in_planes(kernel, quant) || in_words(kernel, quant);
}

Weights::Weights(const Format& format, int64_t n, int64_t k, unsigned seed) {
  std::mt19937 random(seed);
  matrix.n = n;
  matrix.k = k;
  matrix.quant = format.quant;
  (format.quant ? matrix.scale_dtype : matrix.dense_dtype) = format.dtype;
  const MatrixBytes sizes = canonical_bytes(n, k, matrix.dense_dtype, format.quant, matrix.scale_dtype);
  codes = format.quant ? random_codes(random, sizes.codes, format.quant->bits)
                       : random_values(random, static_cast<size_t>(n * k), format.dtype);
  if (format.quant)
    scales = random_values(random, static_cast<size_t>(n * k / format.quant->group), format.dtype);
  if (format.quant && format.quant->has_bias)
    biases = random_values(random, static_cast<size_t>(n * k / format.quant->group), format.dtype);
  matrix.codes = codes;
  matrix.scales = scales;
  matrix.biases = biases;
}

std::vector<uint16_t> random_rows(int64_t rows, int64_t stride) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> x(static_cast<size_t>(rows * stride));
  for (uint16_t& value : x) value = float_to_bf16(normal(random));
  return x;
}

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

RowInIntegers::RowInIntegers(const uint16_t* x, int64_t k, int64_t block, int bits) {
  for (int64_t first = 0; first < k; first += block) {
    const int64_t last = std::min(first + block, k);
    float largest = 0x1p-90f;
    for (int64_t i = first; i < last; ++i) largest = std::max(largest, std::fabs(bf16_to_float(x[i])));
    exponents.push_back(std::ilogb(largest) - bits);
    for (int64_t i = first; i < last; ++i)
      q.push_back(static_cast<int>(std::nearbyint(std::ldexp(bf16_to_float(x[i]), -exponents.back()))));
  }
}

RowInIntegers RowInIntegers::words(const uint16_t* x, const HostMatrix& matrix) {
  return {x, matrix.k, matrix.quant->group, 10};
}

RowInIntegers RowInIntegers::planes(const uint16_t* x, const HostMatrix& matrix) {
  return {x, matrix.k, planes_block_k(matrix.k, matrix.quant->group), 13};
}

ChannelInIntegers::ChannelInIntegers(const HostMatrix& matrix, int64_t n) {
  const QuantLayout& quant = *matrix.quant;
  const int64_t groups = matrix.k / quant.group, block = planes_block_k(matrix.k, quant.group) / quant.group;
  const auto scale = [&](int64_t group) {
    return element_at(matrix.scales.data(), matrix.scale_dtype, n * groups + group);
  };
  const auto bias = [&](int64_t group) {
    return quant.has_bias ? element_at(matrix.biases.data(), matrix.scale_dtype, n * groups + group)
                          : static_cast<float>(-quant.code_zero) * scale(group);
  };
  for (int64_t first = 0; first < groups; first += block) {
    const int64_t last = std::min(first + block, groups);
    float largest = 0x1p-100f;
    for (int64_t group = first; group < last; ++group)
      largest = std::max({largest, std::fabs(bias(group)), std::fabs(15 * scale(group) + bias(group))});
    int exponent = std::ilogb(largest) - 14;
    if (std::ldexp(largest, -exponent) > 32752) ++exponent;
    exponents.push_back(exponent);
    const auto rounded = [&](float value) {
      return static_cast<int>(std::nearbyint(std::ldexp(value, -exponent)));
    };
    for (int64_t k = first * quant.group; k < last * quant.group; ++k) {
      const int64_t group = k / quant.group, at = n * matrix.k + k;
      const int s = rounded(scale(group)), b = quant.has_bias ? rounded(bias(group)) : -quant.code_zero * s;
      const auto byte = std::to_integer<int>(matrix.codes[static_cast<size_t>(at / 2)]);
      weights.push_back(s * (byte >> at % 2 * 4 & 15) + b);
    }
  }
}

}  // namespace tramontane::packed
