#include "cpu/linear_planes_pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/aligned_buffer.h"
#include "cpu/pack_common.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

constexpr int64_t kFactorBytes = kPanelChannels;  // of a block

// Everything of the view that the shape decides; the pointer stays null.
PlanesWeights layout_of(const Matrix& matrix) {
  PlanesWeights layout{};
  layout.n = matrix.n;
  layout.k = matrix.k;
  layout.group = matrix.quant->group;
  layout.units = matrix.k / layout.group;
  layout.block_k = planes_block_k(matrix.k, layout.group);
  layout.blocks = (matrix.k + layout.block_k - 1) / layout.block_k;
  layout.scale_type = scale_type_of(matrix.scale_dtype);
  layout.has_bias = matrix.quant->has_bias;
  layout.code_zero = matrix.quant->code_zero;
  layout.unit_scale_bytes = group_bytes(matrix);
  layout.unit_bytes = layout.unit_scale_bytes + kPanelChannels * layout.group / 2;
  layout.block_bytes = kFactorBytes + layout.block_k / layout.group * layout.unit_bytes;
  layout.panel_bytes = round_up(layout.blocks * kFactorBytes + layout.units * layout.unit_bytes, 64);
  return layout;
}

// Where a group lies in its panel.
int64_t unit_offset(const PlanesWeights& layout, int64_t unit) {
  return (unit * layout.group / layout.block_k + 1) * kFactorBytes + unit * layout.unit_bytes;
}

// Where a group's k lies among its codes: a byte, and the bits in it.
struct CodePlace {
  int64_t byte;
  int shift;
};

CodePlace code_place(int group, int64_t k, int64_t channel) {
  const int64_t in_half = k % (group / 2);
  return {in_half / 4 * 64 + channel * 4 + in_half % 4, k < group / 2 ? 0 : 4};
}

// Four nibbles, the lowest first, to the low halves of four bytes.
uint32_t spread_nibbles(const std::byte* from) {
  uint16_t nibbles;
  std::memcpy(&nibbles, from, 2);
  const uint32_t bytes = (nibbles | static_cast<uint32_t>(nibbles) << 8) & 0x00ff00ffu;
  return (bytes | bytes << 4) & 0x0f0f0f0fu;
}

// The exponent of 2^f: so that the largest weight, which is that of code 0 or 15, comes near 2^15 but not
// above 32752, where the rounding of scale and bias finds room.
uint8_t factor_exponent(float largest) {
  if (!std::isfinite(largest)) return 255;
  const int exponent = std::ilogb(std::max(largest, 0x1p-100f)) - 14;
  return static_cast<uint8_t>(exponent + 127 + (std::ldexp(largest, -exponent) > 32752));
}

void pack_factors(const PanelRows& rows, const PlanesWeights& layout, int64_t block, std::byte* out) {
  const HostMatrix& matrix = rows.matrix;
  const int64_t units = layout.block_k / layout.group, first = block * units;
  for (int channel = 0; channel < rows.channels; ++channel) {
    float largest = 0;
    for (int64_t unit = first; unit < std::min(first + units, layout.units); ++unit) {
      const int64_t at = (rows.first + channel) * layout.units + unit;
      const float scale = element_at(matrix.scales.data(), matrix.scale_dtype, at);
      const float bias = layout.has_bias ? element_at(matrix.biases.data(), matrix.scale_dtype, at)
                                         : static_cast<float>(-layout.code_zero) * scale;
      // What is not a number stays: nothing is greater.
      for (const float weight : {std::fabs(bias), std::fabs(15 * scale + bias)})
        if (weight > largest || std::isnan(weight)) largest = weight;
    }
    out[channel] = std::byte{factor_exponent(largest)};
  }
}

void pack_unit(const PanelRows& rows, const PlanesWeights& layout, int64_t unit, std::byte* out) {
  pack_group_scales(rows, unit, out);
  out += layout.unit_scale_bytes;
  for (int channel = 0; channel < rows.channels; ++channel) {
    const std::byte* codes = rows.codes(channel) + unit * layout.group / 2;
    for (int64_t k = 0; k < layout.group / 2; k += 4) {
      const uint32_t word = spread_nibbles(codes + k / 2) | spread_nibbles(codes + (layout.group / 2 + k) / 2)
                                                                << 4;
      std::memcpy(out + code_place(layout.group, k, channel).byte, &word, 4);
    }
  }
}

}  // namespace

int64_t planes_block_k(int64_t k, int group) {
  const int64_t blocks = (k + kMostBlockK - 1) / kMostBlockK;
  return round_up((k + blocks - 1) / blocks, std::max(64, group));
}

bool planes_take(const std::optional<QuantLayout>& quant) {
  if (!quant || quant->bits != 4) return false;
  if (quant->group != 32 && quant->group != 64 && quant->group != 128) return false;
  if (quant->code_zero < 0 || quant->code_zero > 15 || (quant->has_bias && quant->code_zero != 0))
    return false;
  for (size_t i = 0; i < quant->table.size(); ++i)
    if (quant->table[i] != static_cast<float>(static_cast<int>(i) - quant->code_zero)) return false;
  return true;
}

size_t planes_bytes(const HostMatrix& matrix) {
  return static_cast<size_t>(panel_count(matrix.n) * layout_of(shape_of(matrix)).panel_bytes);
}

Matrix pack_planes(const HostMatrix& matrix, ThreadPool& pool) {
  check_canonical(matrix);
  CHECK(planes_take(matrix.quant), "integer planes are for affine 4-bit codes");
  Matrix packed = shape_of(matrix);
  const PlanesWeights layout = layout_of(packed);
  packed.codes = allocate_aligned(planes_bytes(matrix), "packed weights");
  for_each_panel(matrix, pool, [&](int64_t panel, const PanelRows& rows) {
    std::byte* out = packed.codes.data() + panel * layout.panel_bytes;
    for (int64_t block = 0; block < layout.blocks; ++block)
      pack_factors(rows, layout, block, out + block * layout.block_bytes);
    for (int64_t unit = 0; unit < layout.units; ++unit)
      pack_unit(rows, layout, unit, out + unit_offset(layout, unit));
  });
  return packed;
}

PlanesWeights view_planes(const Matrix& matrix) {
  PlanesWeights view = layout_of(matrix);
  view.panels = reinterpret_cast<const unsigned char*>(matrix.codes.data());
  return view;
}

void read_planes_row(const Matrix& matrix, int64_t n, float* out) {
  const PlanesWeights w = layout_of(matrix);
  const std::byte* panel = matrix.codes.data() + n / kPanelChannels * w.panel_bytes;
  const int64_t channel = n % kPanelChannels;
  for (int64_t k = 0; k < w.k; ++k) {
    const std::byte* unit = panel + unit_offset(w, k / w.group);
    const CodePlace place = code_place(w.group, k % w.group, channel);
    const int code = std::to_integer<int>(unit[w.unit_scale_bytes + place.byte] >> place.shift) & 15;
    out[k] = static_cast<float>(code - w.code_zero) * element_at(unit, matrix.scale_dtype, channel);
    if (w.has_bias) out[k] += element_at(unit, matrix.scale_dtype, kPanelChannels + channel);
  }
}

}  // namespace tramontane
