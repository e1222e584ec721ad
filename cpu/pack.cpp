#include "cpu/pack.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cpu/aligned_buffer.h"
#include "cpu/pack_common.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// The start of every packed buffer.
struct PackedHeader {
  uint16_t table_bf16[32];
  float table_f32[16];
};
static_assert(sizeof(PackedHeader) == 128);

int64_t scale_bytes(const Matrix& matrix) {
  return matrix.quant ? round_up(matrix.k / matrix.quant->group * group_bytes(matrix), 64) : 0;
}

// 32-bit words that the codes of one channel take.
int64_t code_words(const Matrix& matrix) {
  return matrix.quant ? matrix.k * matrix.quant->bits / 32 : matrix.k / 2;
}

int64_t panel_bytes(const Matrix& matrix) {
  return scale_bytes(matrix) + code_words(matrix) * 4 * kPanelChannels;
}

// The number that makes every entry of a table an integer: 192 for FP4, whose entries are integers / 192; 1
// for affine codes; and 1 for a table without such a number (NF4), which the BF16 kernels round.
float table_multiplier(const std::array<float, 16>& table) {
  float smallest = INFINITY;
  for (float entry : table)
    if (entry != 0) smallest = std::min(smallest, std::fabs(entry));
  const auto is_multiple = [&](float entry) {
    const float ratio = entry / smallest;
    return std::fabs(ratio - std::round(ratio)) <= std::fabs(ratio) * 0x1p-22f &&
           bf16_to_float(float_to_bf16(std::round(ratio))) == std::round(ratio);
  };
  return std::all_of(table.begin(), table.end(), is_multiple) ? std::round(1 / smallest) : 1.0f;
}

// Only FP32 scales can take a factor without rounding to 16 bits.
float scale_divisor(const Matrix& matrix) {
  const bool applies = matrix.quant && matrix.quant->bits == 4 && matrix.scale_dtype == DType::f32;
  return applies ? table_multiplier(matrix.quant->table) : 1.0f;
}

void write_header(const Matrix& matrix, std::byte* out) {
  PackedHeader header{};
  const float multiplier = scale_divisor(matrix);
  for (size_t i = 0; matrix.quant && i < 16; ++i) {
    const float value = matrix.quant->table[i] * multiplier;
    header.table_f32[i] = multiplier == 1.0f ? value : std::round(value);
    header.table_bf16[i] = header.table_bf16[i + 16] = float_to_bf16(header.table_f32[i]);
  }
  std::memcpy(out, &header, sizeof header);
}

// PackedWeights::table_factor.
float table_factor(const float* table) {
  float largest = 0;
  for (int i = 0; i < 16; ++i) largest = std::max(largest, std::fabs(table[i]));
  if (largest == 0) return 1;
  const int exponent = std::ilogb(largest);
  return std::ldexp(1.0f, (largest == std::ldexp(1.0f, exponent) ? 13 : 12) - exponent);
}

uint32_t word_at(const std::byte* row, int64_t index) {
  uint32_t word;
  std::memcpy(&word, row + index * 4, 4);
  return word;
}

// Eight nibbles in the order of k: even ones to the lower half, odd ones to the upper.
uint32_t split_nibbles(uint32_t word) {
  const auto gather_even = [](uint32_t nibbles) {
    nibbles &= 0x0f0f0f0fu;
    nibbles = (nibbles | nibbles >> 4) & 0x00ff00ffu;
    return (nibbles | nibbles >> 8) & 0xffffu;
  };
  return gather_even(word) | gather_even(word >> 4) << 16;
}

// Of the 16-bit lanes of eight bytes, the lowest `Bits` bits, one beside the other.
template <int Bits>
uint32_t gather_lanes(uint64_t lanes) {
  lanes &= 0x0001000100010001u * ((1u << Bits) - 1);
  lanes = (lanes | lanes >> (16 - Bits)) & 0x0000000100000001u * ((1u << 2 * Bits) - 1);
  return static_cast<uint32_t>(lanes | lanes >> (32 - 2 * Bits)) & ((1u << 4 * Bits) - 1);
}

// Word `index` of a row of 6-bit codes, each in a byte.
uint32_t six_word(const std::byte* row, int64_t index) {
  const auto codes_at = [&](int64_t first) {
    uint64_t codes;
    std::memcpy(&codes, row + index / 3 * 16 + first, 8);
    return codes;
  };
  if (index % 3 < 2) {
    const uint64_t codes = codes_at(index % 3 * 8);
    return gather_lanes<4>(codes) | gather_lanes<4>(codes >> 8) << 16;
  }
  const uint64_t first = codes_at(0) >> 4, second = codes_at(8) >> 4;
  return gather_lanes<2>(first) | gather_lanes<2>(second) << 8 | gather_lanes<2>(first >> 8) << 16 |
         gather_lanes<2>(second >> 8) << 24;
}

uint32_t rounded_pair(const std::byte* row, DType dtype, int64_t index) {
  const uint32_t low = float_to_bf16(element_at(row, dtype, 2 * index));
  const uint32_t high = float_to_bf16(element_at(row, dtype, 2 * index + 1));
  return low | high << 16;
}

// out[index][channel] = word(row of channel, index). A block at a time, so that the cache lines written stay
// in L1 for all channels.
template <typename Word>
void interleave(const std::byte* rows, int64_t row_bytes, int channels, int64_t words, std::byte* out,
                Word word) {
  constexpr int64_t kBlock = 64;
  for (int64_t first = 0; first < words; first += kBlock)
    for (int channel = 0; channel < channels; ++channel)
      for (int64_t index = first; index < std::min(words, first + kBlock); ++index) {
        const uint32_t value = word(rows + channel * row_bytes, index);
        std::memcpy(out + (index * kPanelChannels + channel) * 4, &value, 4);
      }
}

void pack_codes(const PanelRows& panel, int64_t words, std::byte* out) {
  const HostMatrix& matrix = panel.matrix;
  const int64_t row_bytes = static_cast<int64_t>(matrix.codes.size()) / matrix.n;
  const std::byte* rows = panel.codes(0);
  const int channels = panel.channels;
  const DType dtype = matrix.dense_dtype;
  if (matrix.quant && matrix.quant->bits == 4) {
    interleave(rows, row_bytes, channels, words, out,
               [](const std::byte* row, int64_t i) { return split_nibbles(word_at(row, i)); });
  } else if (matrix.quant && matrix.quant->bits == 6) {
    interleave(rows, row_bytes, channels, words, out, six_word);
  } else if (matrix.quant || dtype == DType::bf16) {
    interleave(rows, row_bytes, channels, words, out, word_at);
  } else {
    interleave(rows, row_bytes, channels, words, out,
               [dtype](const std::byte* row, int64_t i) { return rounded_pair(row, dtype, i); });
  }
}

void pack_scales(const PanelRows& rows, float divisor, std::byte* out) {
  const int64_t groups = rows.matrix.k / rows.matrix.quant->group, bytes = group_bytes(shape_of(rows.matrix));
  for (int64_t g = 0; g < groups; ++g, out += bytes) {
    pack_group_scales(rows, g, out);
    if (divisor == 1.0f) continue;
    for (int channel = 0; channel < rows.channels; ++channel) {
      const float divided = element_at(out, DType::f32, channel) / divisor;
      std::memcpy(out + channel * 4, &divided, 4);
    }
  }
}

}  // namespace

size_t packed_bytes(const HostMatrix& matrix) {
  return sizeof(PackedHeader) + static_cast<size_t>(panel_count(matrix.n) * panel_bytes(shape_of(matrix)));
}

Matrix pack_panels(const HostMatrix& matrix, ThreadPool& pool) {
  check_canonical(matrix);
  if (matrix.k % 2 != 0)
    throw std::runtime_error("weight matrix: k is " + std::to_string(matrix.k) +
                             ", the vector kernels need an even one");
  Matrix packed = shape_of(matrix);
  const int64_t bytes = panel_bytes(packed), words = code_words(packed);
  packed.codes = allocate_aligned(packed_bytes(matrix), "packed weights");
  write_header(packed, packed.codes.data());
  const float divisor = scale_divisor(packed);
  for_each_panel(matrix, pool, [&](int64_t panel, const PanelRows& rows) {
    std::byte* out = packed.codes.data() + sizeof(PackedHeader) + panel * bytes;
    if (matrix.quant) pack_scales(rows, divisor, out);
    pack_codes(rows, words, out + scale_bytes(packed));
  });
  return packed;
}

PackedWeights view_packed(const Matrix& matrix) {
  const auto* header = reinterpret_cast<const PackedHeader*>(matrix.codes.data());
  PackedWeights view{};
  view.n = matrix.n;
  view.k = matrix.k;
  view.panels = reinterpret_cast<const unsigned char*>(header + 1);
  view.panel_bytes = panel_bytes(matrix);
  view.scale_bytes = scale_bytes(matrix);
  view.codes = WeightCodes::bf16;
  if (!matrix.quant) return view;
  view.codes = weight_codes(matrix.quant->bits);
  view.scale_type = scale_type_of(matrix.scale_dtype);
  view.has_bias = matrix.quant->has_bias;
  view.group = matrix.quant->group;
  view.code_zero = static_cast<float>(matrix.quant->code_zero);
  view.table_bf16 = header->table_bf16;
  view.table_f32 = header->table_f32;
  view.table_factor = view.codes == WeightCodes::nibbles ? table_factor(view.table_f32) : 1;
  return view;
}

namespace {

// The code of weight k in the words of its channel, a word every kPanelChannels.
unsigned code_at(WeightCodes codes, const std::byte* channel, int64_t k) {
  const auto word = [&](int64_t index) { return word_at(channel, index * kPanelChannels); };
  const auto nibble = [](uint32_t from, int64_t i) { return from >> (16 * (i % 2) + 4 * (i / 2)) & 15u; };
  if (codes == WeightCodes::nibbles) return nibble(word(k / 8), k % 8);
  if (codes == WeightCodes::bytes) return word(k / 4) >> 8 * (k % 4) & 255u;
  const int64_t chunk = k / 16 * 3, i = k % 16;
  const uint32_t high = word(chunk + 2) >> (16 * (i % 2) + 2 * (i / 2)) & 3u;
  return nibble(word(chunk + i / 8), i % 8) | high << 4;
}

}  // namespace

void read_packed_row(const Matrix& matrix, int64_t n, float* out) {
  const PackedWeights w = view_packed(matrix);
  const int64_t channel = n % kPanelChannels;
  const auto* panel = reinterpret_cast<const std::byte*>(w.panels) + n / kPanelChannels * w.panel_bytes;
  const std::byte* codes = panel + w.scale_bytes + channel * 4;
  for (int64_t k = 0; k < matrix.k; ++k) {
    if (w.codes == WeightCodes::bf16) {
      out[k] = bf16_to_float(static_cast<uint16_t>(word_at(codes, k / 2 * kPanelChannels) >> 16 * (k % 2)));
      continue;
    }
    const unsigned code = code_at(w.codes, codes, k);
    const float value =
        w.codes == WeightCodes::nibbles ? w.table_f32[code] : static_cast<float>(code) - w.code_zero;
    const std::byte* scales = panel + k / w.group * group_bytes(matrix);
    out[k] = value * element_at(scales, matrix.scale_dtype, channel);
    if (w.has_bias) out[k] += element_at(scales, matrix.scale_dtype, kPanelChannels + channel);
  }
}

}  // namespace tramontane
