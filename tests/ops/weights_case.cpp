#include "tests/ops/weights_case.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace tramontane::ops {
namespace {

QuantLayout affine4(int group, int code_zero, bool has_bias) {
  QuantLayout layout{.bits = 4, .group = group, .has_bias = has_bias, .code_zero = code_zero, .table = {}};
  for (int i = 0; i < 16; ++i) layout.table[static_cast<size_t>(i)] = static_cast<float>(i - code_zero);
  return layout;
}

// A codebook like NF4: uneven, asymmetric, not exact in BF16.
QuantLayout codebook4(int group) {
  QuantLayout layout{.bits = 4, .group = group, .has_bias = false, .code_zero = 0, .table = {}};
  for (int i = 0; i < 16; ++i)
    layout.table[static_cast<size_t>(i)] = static_cast<float>(std::tanh((i - 7) / 5.0));
  return layout;
}

QuantLayout affine6(int group, int code_zero, bool has_bias) {
  return {.bits = 6, .group = group, .has_bias = has_bias, .code_zero = code_zero, .table = {}};
}
QuantLayout affine8(int group, int code_zero, bool has_bias) {
  return {.bits = 8, .group = group, .has_bias = has_bias, .code_zero = code_zero, .table = {}};
}

// Rounds toward zero and takes what is too small for a normal F16 as 0: test weights need not be rounded
// well.
uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const int exponent = static_cast<int>(bits >> 23 & 0xff) - 112;
  if (exponent <= 0) return 0;
  return static_cast<uint16_t>((bits >> 16 & 0x8000) | static_cast<unsigned>(exponent << 10) |
                               (bits >> 13 & 0x3ff));
}

void append(std::vector<std::byte>& bytes, float value, DType dtype) {
  const uint16_t half = dtype == DType::bf16 ? float_to_bf16(value) : float_to_f16(value);
  const void* from = dtype == DType::f32 ? static_cast<const void*>(&value) : &half;
  const size_t at = bytes.size();
  bytes.resize(at + size_of(dtype));
  std::memcpy(bytes.data() + at, from, size_of(dtype));
}

struct Parts {
  std::vector<std::byte> codes, scales, biases;
};

}  // namespace

std::vector<WeightFormat> weight_formats() {
  return {{"bf16", DType::bf16, {}, DType::f32},
          {"f16", DType::f16, {}, DType::f32},
          {"f32", DType::f32, {}, DType::f32},
          {"q4_0", DType::bf16, affine4(32, 8, false), DType::f16},
          {"q4_1", DType::bf16, affine4(32, 0, true), DType::f16},
          {"mlx4", DType::bf16, affine4(64, 0, true), DType::bf16},
          {"mlx4_f32", DType::bf16, affine4(128, 0, true), DType::f32},
          {"codebook", DType::bf16, codebook4(64), DType::f32},
          {"codebook_f16", DType::bf16, codebook4(16), DType::f16},
          {"q8_0", DType::bf16, affine8(32, 128, false), DType::f16},
          {"q6_k", DType::bf16, affine6(16, 32, false), DType::f32},
          {"mlx6", DType::bf16, affine6(64, 0, true), DType::bf16},
          {"mlx8", DType::bf16, affine8(64, 0, true), DType::bf16}};
}

HostMatrix random_matrix(const WeightFormat& format, int64_t n, int64_t k, uint32_t seed) {
  const auto parts = std::make_shared<Parts>();
  const float size = 1.0f / std::sqrt(static_cast<float>(k));
  const auto count = static_cast<size_t>(n * k);
  if (!format.quant) {
    for (float value : random_values(count, seed, -size, size))
      append(parts->codes, value, format.dense_dtype);
  } else {
    const QuantLayout& layout = *format.quant;
    std::mt19937 generator(seed);
    parts->codes.resize(layout.bits == 4 ? count / 2 : count);
    const unsigned code_mask = layout.bits == 6 ? 0x3fu : 0xffu;
    for (std::byte& byte : parts->codes) byte = static_cast<std::byte>(generator() >> 13 & code_mask);
    const float reach = layout.bits == 4 ? std::abs(layout.table[15]) : layout.bits == 6 ? 32.0f : 128.0f;
    for (float v : random_values(count / static_cast<size_t>(layout.group), seed + 1, 0.2f, 1.0f)) {
      append(parts->scales, v * size / reach, format.scale_dtype);
      if (layout.has_bias) append(parts->biases, -v * size, format.scale_dtype);
    }
  }
  return {n,
          k,
          format.dense_dtype,
          format.quant,
          format.scale_dtype,
          parts->codes,
          parts->scales,
          parts->biases,
          parts};
}

Values exact_row(const HostMatrix& matrix, int64_t n, DType act_dtype) {
  Values row(static_cast<size_t>(matrix.k));
  dequantize_row(matrix, n, row);
  if (!matrix.quant) {
    for (float& value : row) value = stored_as(value, act_dtype);
  }
  return row;
}

}  // namespace tramontane::ops
