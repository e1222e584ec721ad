#include "cpu/linear_amx_pack.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/aligned_buffer.h"
#include "cpu/pack_common.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// A packed buffer starts with the 16 values of a 4-bit table.
constexpr size_t kTableBytes = 16 * sizeof(float);

int64_t tile_code_bytes(WeightCodes codes) {
  if (codes == WeightCodes::bf16) return kTileBytes;
  return kTileBytes / 16 * (codes == WeightCodes::nibbles ? 4 : codes == WeightCodes::sixes ? 6 : 8);
}

// Where a tile's codes begin in its panel.
int64_t codes_at(const AmxWeights& layout, int64_t tile) {
  return tile / layout.unit_tiles * layout.unit_bytes + layout.unit_scale_bytes +
         tile % layout.unit_tiles * layout.tile_code_bytes;
}

// Where a group's scales begin in its panel; `bytes`: of its scales and biases.
int64_t scales_at(const AmxWeights& layout, int64_t group, int64_t bytes) {
  const int64_t groups = layout.unit_scale_bytes / bytes;  // of a unit
  return group / groups * layout.unit_bytes + group % groups * bytes;
}

// A stored byte of 8-bit codes, from a code or back.
std::byte signed_where_asked(const AmxWeights& layout, std::byte code) {
  return layout.code_zero == 128.0f ? code ^ std::byte{0x80} : code;
}

// The rest are the packers of one panel: `out` is zero where they write nothing.
void pack_scales(const PanelRows& rows, const AmxWeights& layout, std::byte* out) {
  const int64_t bytes = group_bytes(shape_of(rows.matrix));
  for (int64_t g = 0; g < layout.k / layout.group; ++g)
    pack_group_scales(rows, g, out + scales_at(layout, g, bytes));
}

void pack_dense(const PanelRows& rows, const AmxWeights&, int channel, int64_t first, std::byte* tile) {
  const std::byte* row = rows.codes(channel);
  const int64_t count = std::min<int64_t>(kTileK, rows.matrix.k - first);
  uint16_t values[kTileK];
  if (rows.matrix.dense_dtype == DType::bf16) {
    std::memcpy(values, row + first * 2, static_cast<size_t>(count) * 2);
  } else {
    for (int64_t i = 0; i < count; ++i)
      values[i] = float_to_bf16(element_at(row, rows.matrix.dense_dtype, first + i));
  }
  std::memcpy(tile + channel * 64, values, static_cast<size_t>(count) * 2);
}

// Nibble j of word i of vector v is channel 4v + j at k = i. Two words are one 32-bit store; K is even.
void pack_nibbles(const PanelRows& rows, const AmxWeights&, int channel, int64_t first, std::byte* tile) {
  const std::byte* row = rows.codes(channel);
  const int shift = channel % 4 * 4;
  const int64_t last = std::min<int64_t>(first + kTileK, rows.matrix.k);
  for (int64_t k = first; k < last; k += 2) {
    const auto byte = std::to_integer<uint32_t>(row[k / 2]);
    std::byte* words = tile + channel / 4 * 64 + (k - first) * 2;
    uint32_t pair;
    std::memcpy(&pair, words, 4);
    pair |= ((byte & 15u) | (byte >> 4) << 16) << shift;
    std::memcpy(words, &pair, 4);
  }
}

void pack_bytes(const PanelRows& rows, const AmxWeights& layout, int channel, int64_t first,
                std::byte* tile) {
  const std::byte* row = rows.codes(channel);
  const int64_t count = std::min<int64_t>(kTileK, rows.matrix.k - first);
  for (int64_t i = 0; i < count; ++i) tile[channel * kTileK + i] = signed_where_asked(layout, row[first + i]);
}

constexpr int kSixHighs = kPanelChannels * kTileK / 2;  // where the high bits of a tile's 6-bit codes begin

// Of the code of weight i of a channel, where in its tile and how far up.
struct SixPlace {
  int64_t low, low_shift, high, high_shift;
  SixPlace(int64_t channel, int64_t i)
      : low(channel * 16 + i % 16),
        low_shift(i / 16 * 4),
        high(kSixHighs + channel / 2 * 16 + i % 16),
        high_shift(channel % 2 * 4 + i / 16 * 2) {}
};

void pack_sixes(const PanelRows& rows, const AmxWeights&, int channel, int64_t first, std::byte* tile) {
  const std::byte* row = rows.codes(channel);
  const int64_t count = std::min<int64_t>(kTileK, rows.matrix.k - first);
  for (int64_t i = 0; i < count; ++i) {
    const std::byte code = row[first + i];
    const SixPlace at(channel, i);
    tile[at.low] |= (code & std::byte{15}) << at.low_shift;
    tile[at.high] |= (code >> 4 & std::byte{3}) << at.high_shift;
  }
}

void pack_panel(const PanelRows& rows, const AmxWeights& layout, std::byte* out) {
  if (layout.codes != WeightCodes::bf16) pack_scales(rows, layout, out);
  const auto pack_tile = layout.codes == WeightCodes::bf16      ? pack_dense
                         : layout.codes == WeightCodes::nibbles ? pack_nibbles
                         : layout.codes == WeightCodes::sixes   ? pack_sixes
                                                                : pack_bytes;
  for (int64_t tile = 0; tile < layout.tiles; ++tile)
    for (int channel = 0; channel < rows.channels; ++channel)
      pack_tile(rows, layout, channel, tile * kTileK, out + codes_at(layout, tile));
}

// Everything of the view that the shape decides; pointers stay null.
AmxWeights layout_of(const Matrix& matrix) {
  AmxWeights layout{};
  layout.n = matrix.n;
  layout.k = matrix.k;
  layout.tiles = round_up(matrix.k, kTileK) / kTileK;
  layout.codes = WeightCodes::bf16;
  layout.unit_tiles = 1;
  if (matrix.quant) {
    layout.codes = weight_codes(matrix.quant->bits);
    layout.scale_type = scale_type_of(matrix.scale_dtype);
    layout.has_bias = matrix.quant->has_bias;
    layout.group = matrix.quant->group;
    layout.code_zero = static_cast<float>(matrix.quant->code_zero);
    layout.unit_tiles = std::max(1, layout.group / kTileK);
    layout.unit_scale_bytes = layout.unit_tiles * kTileK / layout.group * group_bytes(matrix);
  }
  layout.tile_code_bytes = tile_code_bytes(layout.codes);
  layout.unit_bytes = layout.unit_scale_bytes + layout.unit_tiles * layout.tile_code_bytes;
  layout.panel_bytes = round_up(layout.tiles / layout.unit_tiles * layout.unit_bytes, 64);
  return layout;
}

}  // namespace

size_t amx_bytes(const HostMatrix& matrix) {
  return kTableBytes + static_cast<size_t>(panel_count(matrix.n) * layout_of(shape_of(matrix)).panel_bytes);
}

Matrix pack_amx(const HostMatrix& matrix, ThreadPool& pool) {
  check_canonical(matrix);
  if (matrix.k % 2 != 0)
    throw std::runtime_error("weight matrix: k is " + std::to_string(matrix.k) +
                             ", the AMX kernels need an even one");
  if (matrix.quant)
    CHECK(matrix.quant->group == 16 || matrix.quant->group == 32 || matrix.quant->group == 64 ||
              matrix.quant->group == 128,
          "groups are 16, 32, 64 or 128 weights");
  Matrix packed = shape_of(matrix);
  const AmxWeights layout = layout_of(packed);
  packed.codes = allocate_aligned(amx_bytes(matrix), "packed weights");
  if (matrix.quant) std::memcpy(packed.codes.data(), matrix.quant->table.data(), kTableBytes);
  for_each_panel(matrix, pool, [&](int64_t panel, const PanelRows& rows) {
    pack_panel(rows, layout, packed.codes.data() + kTableBytes + panel * layout.panel_bytes);
  });
  return packed;
}

AmxWeights view_amx(const Matrix& matrix) {
  AmxWeights view = layout_of(matrix);
  view.panels = reinterpret_cast<const unsigned char*>(matrix.codes.data() + kTableBytes);
  view.table = reinterpret_cast<const float*>(matrix.codes.data());
  return view;
}

void read_amx_row(const Matrix& matrix, int64_t n, float* out) {
  const AmxWeights w = view_amx(matrix);
  const auto* panel = reinterpret_cast<const std::byte*>(w.panels) + n / kPanelChannels * w.panel_bytes;
  const int64_t channel = n % kPanelChannels;
  for (int64_t k = 0; k < w.k; ++k) {
    const std::byte* codes = panel + codes_at(w, k / kTileK);
    const int64_t i = k % kTileK;
    if (w.codes == WeightCodes::bf16) {
      out[k] = element_at(codes, DType::bf16, channel * kTileK + i);
      continue;
    }
    float code;
    if (w.codes == WeightCodes::nibbles) {
      const auto byte = std::to_integer<unsigned>(codes[channel / 4 * 64 + i * 2 + channel % 4 / 2]);
      code = w.table[byte >> channel % 2 * 4 & 15u];
    } else if (w.codes == WeightCodes::sixes) {
      const SixPlace at(channel, i);
      const std::byte low = codes[at.low] >> at.low_shift & std::byte{15};
      const std::byte high = codes[at.high] >> at.high_shift & std::byte{3};
      code = static_cast<float>(std::to_integer<int>(low | high << 4)) - w.code_zero;
    } else {
      const std::byte byte = signed_where_asked(w, codes[channel * kTileK + i]);
      code = static_cast<float>(std::to_integer<int>(byte)) - w.code_zero;
    }
    const std::byte* scales = panel + scales_at(w, k / w.group, group_bytes(matrix));
    out[k] = code * element_at(scales, matrix.scale_dtype, channel);
    if (w.has_bias) out[k] += element_at(scales, matrix.scale_dtype, kPanelChannels + channel);
  }
}

}  // namespace tramontane
