#include "engine/backend/matrix.h"

#include <cstring>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

float read_element(std::span<const std::byte> bytes, DType dtype, int64_t index) {
  const std::byte* at = bytes.data() + index * static_cast<int64_t>(size_of(dtype));
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return dtype == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
}

void dequantize_group(const HostMatrix& m, int64_t first_code, float scale, float bias, std::span<float> out) {
  const QuantLayout& layout = *m.quant;
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t e = first_code + static_cast<int64_t>(i);
    float value;
    if (layout.bits == 4) {
      const auto byte = std::to_integer<unsigned>(m.codes[static_cast<size_t>(e / 2)]);
      value = layout.table[e % 2 == 0 ? byte & 15u : byte >> 4];
    } else {
      value = static_cast<float>(std::to_integer<int>(m.codes[static_cast<size_t>(e)]) - layout.code_zero);
    }
    const float product = value * scale;
    out[i] = layout.has_bias ? product + bias : product;
  }
}

}  // namespace

MatrixBytes canonical_bytes(int64_t n, int64_t k, DType dense_dtype, const std::optional<QuantLayout>& quant,
                            DType scale_dtype) {
  const auto count = static_cast<size_t>(n) * static_cast<size_t>(k);
  if (!quant) return {count * size_of(dense_dtype), 0};
  return {quant->bits == 4 ? count / 2 : count, count / static_cast<size_t>(quant->group) * size_of(scale_dtype)};
}

void check_canonical(const HostMatrix& m) {
  const MatrixBytes want = canonical_bytes(m.n, m.k, m.dense_dtype, m.quant, m.scale_dtype);
  CHECK_EQ(m.codes.size(), want.codes);
  CHECK_EQ(m.scales.size(), want.scales);
  CHECK_EQ(m.biases.size(), (m.quant && m.quant->has_bias ? want.scales : size_t{0}));
  if (m.quant) CHECK_EQ(m.k % m.quant->group, 0);
}

void dequantize_row(const HostMatrix& m, int64_t n, std::span<float> out) {
  CHECK_EQ(static_cast<int64_t>(out.size()), m.k);
  if (!m.quant) {
    for (int64_t k = 0; k < m.k; ++k) out[static_cast<size_t>(k)] = read_element(m.codes, m.dense_dtype, n * m.k + k);
    return;
  }
  const auto group = static_cast<size_t>(m.quant->group);
  const int64_t groups = m.k / m.quant->group;
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = read_element(m.scales, m.scale_dtype, n * groups + g);
    const float bias = m.quant->has_bias ? read_element(m.biases, m.scale_dtype, n * groups + g) : 0.0f;
    dequantize_group(m, n * m.k + g * m.quant->group, scale, bias, out.subspan(static_cast<size_t>(g) * group, group));
  }
}

}  // namespace tramontane
