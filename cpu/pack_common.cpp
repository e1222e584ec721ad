#include "cpu/pack_common.h"

#include <algorithm>
#include <cstring>

#include "engine/backend/check.h"

namespace tramontane {

Matrix shape_of(const HostMatrix& matrix) {
  Matrix packed;
  packed.n = matrix.n;
  packed.k = matrix.k;
  packed.quant = matrix.quant;
  packed.scale_dtype = matrix.scale_dtype;
  return packed;
}

WeightCodes weight_codes(int bits) {
  CHECK(bits == 4 || bits == 6 || bits == 8, "codes have 4, 6 or 8 bits");
  return bits == 4 ? WeightCodes::nibbles : bits == 6 ? WeightCodes::sixes : WeightCodes::bytes;
}

ScaleType scale_type_of(DType dtype) {
  CHECK(dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16, "scales are F32, F16 or BF16");
  if (dtype == DType::f32) return ScaleType::f32;
  return dtype == DType::f16 ? ScaleType::f16 : ScaleType::bf16;
}

float element_at(const std::byte* data, DType dtype, int64_t index) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + index * 2, 2);
  return dtype == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
}

int64_t group_bytes(const Matrix& matrix) {
  return kPanelChannels * static_cast<int64_t>(size_of(matrix.scale_dtype)) *
         (matrix.quant->has_bias ? 2 : 1);
}

void pack_group_scales(const PanelRows& rows, int64_t group, std::byte* out) {
  const HostMatrix& matrix = rows.matrix;
  const int64_t groups = matrix.k / matrix.quant->group;
  const size_t size = size_of(matrix.scale_dtype);
  for (const std::span<const std::byte> values : {matrix.scales, matrix.biases}) {
    if (values.empty()) continue;
    for (int channel = 0; channel < rows.channels; ++channel) {
      const auto at = static_cast<size_t>((rows.first + channel) * groups + group);
      std::memcpy(out + static_cast<size_t>(channel) * size, values.data() + at * size, size);
    }
    out += kPanelChannels * size;
  }
}

void for_each_panel(const HostMatrix& matrix, ThreadPool& pool,
                    const std::function<void(int64_t, const PanelRows&)>& pack) {
  const int64_t panels = panel_count(matrix.n);
  pool.run([&](int thread) {
    const Share share = share_of(panels, thread, pool.size());
    for (int64_t panel = share.first; panel < share.last; ++panel) {
      const int64_t first = panel * kPanelChannels;
      pack(panel, {matrix, first, static_cast<int>(std::min<int64_t>(kPanelChannels, matrix.n - first))});
    }
  });
}

}  // namespace tramontane
