#include "cuda/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "cuda/linear.h"
#include "engine/backend/check.h"

namespace tramontane::cuda {
namespace {

bool is_affine(const QuantLayout& q) {
  for (int i = 0; i < 16; ++i) {
    if (q.table[static_cast<size_t>(i)] != static_cast<float>(i - q.code_zero)) return false;
  }
  return q.code_zero >= 0 && q.code_zero < 128;  // 128 + code_zero is a BF16 number
}

// Whether 192 times the table is bitsandbytes' FP4, up to the table's own rounding to FP32.
bool is_fp4(const QuantLayout& q) {
  constexpr float kValues[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i) {
    const float want = (i < 8 ? 1.0f : -1.0f) * kValues[i % 8];
    if (std::abs(q.table[i] * 192.0f - want) > 0x1p-22f * std::abs(want)) return false;
  }
  return true;
}

std::string describe(const QuantLayout& q) {
  return std::to_string(q.bits) + "-bit codes, groups of " + std::to_string(q.group) +
         (q.has_bias ? ", biases" : "") + ", code_zero " + std::to_string(q.code_zero);
}

[[noreturn]] void refuse(const QuantLayout& q, const std::string& why) {
  throw std::runtime_error("cuda: no kernel for " + describe(q) + ": " + why);
}

Codes codes_of(const QuantLayout& q) {
  if (q.bits == 6 || q.bits == 8) {  // both lie in bytes
    if (q.code_zero < 0 || q.code_zero > 128 || q.code_zero % 2 != 0)
      refuse(q, "code_zero of 6- and 8-bit codes must be even, 0 to 128");
    return Codes::affine8;
  }
  if (q.bits != 4) refuse(q, "codes have 4, 6 or 8 bits");
  if (is_affine(q)) return Codes::affine4;
  // A codebook has no fold of 32: below groups of 64 FP4 is a codebook like any other.
  return is_fp4(q) && q.group >= 64 ? Codes::fp4 : Codes::codebook4;
}

// What a format costs a layout, smaller is better; negative when it cannot hold it.
int cost(const PackedFormat& f, Codes codes, const QuantLayout& q, int scale_bytes) {
  if (f.codes != codes || f.fold > q.group || f.scale_bytes < scale_bytes || (q.has_bias && !f.bias))
    return -1;
  return bytes_per_scale_entry(f) * 8 + 64 / f.fold;  // bytes first, then folds
}

int find_format(const QuantLayout& q, int scale_bytes) {
  const Codes codes = codes_of(q);
  int best = -1, best_cost = 0;
  for (int i = 0; i < kFormatCount; ++i) {
    const int c = cost(kFormats[i], codes, q, scale_bytes);
    if (c < 0 || (best >= 0 && c >= best_cost)) continue;
    best = i;
    best_cost = c;
  }
  if (best < 0) refuse(q, "a codebook has no biases");
  return best;
}

float read_float(const std::byte* from, DType dtype, int64_t index) {
  if (dtype == DType::f32) {
    float value;
    std::memcpy(&value, from + index * 4, sizeof value);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, from + index * 2, sizeof bits);
  return dtype == DType::f16 ? f16_to_float(bits) : bf16_to_float(bits);
}

// Four neighbouring codes or numbers of one row, and of the row 8 below, as a lane's words of one step.
uint32_t spread_nibbles(uint32_t v) {  // to nibbles 0, 4, 2, 6
  return (v & 0x0f0fu) | (v & 0xf0f0u) << 12;
}
uint32_t spread_selectors(uint32_t v) {  // to nibbles 0, 2, 4, 6
  return (v & 0xfu) | (v & 0xf0u) << 4 | (v & 0xf00u) << 8 | (v & 0xf000u) << 12;
}
uint32_t affine4_word(uint32_t upper, uint32_t lower) {
  return spread_nibbles(upper) | spread_nibbles(lower) << 4;
}
uint32_t codebook4_word(uint32_t upper, uint32_t lower) {
  return spread_selectors(upper) | spread_selectors(lower) << 4;
}
// Magnitudes where a selector of bytes needs them, signs where a shift brings them to the tops of a BF16
// pair.
uint32_t fp4_word(uint32_t upper, uint32_t lower) {
  return (codebook4_word(upper, lower) & 0x77777777u) | (affine4_word(upper, lower) & 0x88888888u);
}
uint32_t affine8_word(uint32_t upper, uint32_t lower) {  // the two lowest bytes of each
  return (upper & 0xffu) | (lower & 0xffu) << 8 | (upper & 0xff00u) << 8 | (lower & 0xff00u) << 16;
}

class TilePacker {
 public:
  TilePacker(const HostMatrix& m, const PackedLayout& layout) : m_(m), layout_(layout) {}

  void codes(int64_t row_tile, std::byte* out) const {
    for (int64_t k_tile = 0; k_tile < layout_.k_tiles; ++k_tile) {
      for (int lane = 0; lane < kLanes; ++lane) {
        uint32_t words[kTileSteps * 4];
        const int per_step = words_per_tile(format().codes);
        for (int step = 0; step < kTileSteps; ++step)
          step_words(row_tile * kTileRows + lane / 4,
                     k_tile * kTileK + first_input(format().fold, step, lane % 4), words + step * per_step);
        for (int v = 0; v < per_step; ++v)
          std::memcpy(out + (v * kLanes + lane) * kWordBytes, words + v * 4, kWordBytes);
      }
      out += words_per_tile(format().codes) * kLanes * kWordBytes;
    }
  }

  void scales(int64_t row_tile, std::byte* out) const {
    for (int64_t group = 0; group < layout_.groups; ++group) {
      for (int g = 0; g < 8; ++g) {
        const int64_t row = row_tile * kTileRows + g;
        out = put_scale(m_.scales, row, group, out);
        out = put_scale(m_.scales, row + 8, group, out);
        if (!format().bias) continue;
        out = put_scale(m_.biases, row, group, out);
        out = put_scale(m_.biases, row + 8, group, out);
      }
    }
  }

 private:
  const PackedFormat& format() const { return layout_.kernel_format(); }

  // What a lane hands to one step: inputs k .. k+3 of `row` and of row + 8.
  void step_words(int64_t row, int64_t k, uint32_t* out) const {
    switch (format().codes) {
      case Codes::affine4:
        out[0] = affine4_word(nibbles(row, k), nibbles(row + 8, k));
        break;
      case Codes::fp4:
        out[0] = fp4_word(nibbles(row, k), nibbles(row + 8, k));
        break;
      case Codes::codebook4:
        out[0] = codebook4_word(nibbles(row, k), nibbles(row + 8, k));
        break;
      case Codes::affine8: {
        const uint32_t upper = bytes(row, k), lower = bytes(row + 8, k);
        out[0] = affine8_word(upper, lower);
        out[1] = affine8_word(upper >> 16, lower >> 16);
        break;
      }
      case Codes::dense:
        for (int j = 0; j < 4; ++j) {
          const int64_t r = row + 8 * (j % 2), at = k + j / 2 * 2;
          out[j] = uint32_t{dense(r, at)} | uint32_t{dense(r, at + 1)} << 16;
        }
    }
  }

  // Quantised rows are whole groups of 16 and more: four neighbours are all there or all past the end.
  bool inside(int64_t row, int64_t k) const { return row < m_.n && k < m_.k; }
  uint32_t nibbles(int64_t row, int64_t k) const {
    uint16_t codes = 0;
    if (inside(row, k)) std::memcpy(&codes, m_.codes.data() + (row * m_.k + k) / 2, sizeof codes);
    return codes;
  }
  uint32_t bytes(int64_t row, int64_t k) const {
    uint32_t codes = 0;
    if (inside(row, k)) std::memcpy(&codes, m_.codes.data() + row * m_.k + k, sizeof codes);
    return codes;
  }
  uint16_t dense(int64_t row, int64_t k) const {
    if (!inside(row, k)) return 0;
    const int64_t index = row * m_.k + k;
    if (m_.dense_dtype != DType::bf16)
      return float_to_bf16(read_float(m_.codes.data(), m_.dense_dtype, index));
    uint16_t bits;
    std::memcpy(&bits, m_.codes.data() + index * 2, sizeof bits);
    return bits;
  }

  // Nothing (zeros) for rows and groups past the end, and for biases that the source does not have.
  std::byte* put_scale(std::span<const std::byte> from, int64_t row, int64_t group, std::byte* out) const {
    const int64_t stored = m_.k / m_.quant->group;
    const bool there = row < m_.n && group < stored && !from.empty();
    const int64_t index = row * stored + group;
    if (format().scale_bytes == 2) {
      uint16_t bits = 0;
      if (there) std::memcpy(&bits, from.data() + index * 2, sizeof bits);
      std::memcpy(out, &bits, sizeof bits);
    } else {
      const float value = there ? read_float(from.data(), m_.scale_dtype, index) : 0.0f;
      std::memcpy(out, &value, sizeof value);
    }
    return out + format().scale_bytes;
  }

  const HostMatrix& m_;
  const PackedLayout& layout_;
};

}  // namespace

std::string describe(const PackedFormat& f) {
  constexpr const char* kNames[] = {"dense", "affine4", "fp4", "codebook4", "affine8"};
  std::string text = kNames[static_cast<size_t>(f.codes)];
  if (f.codes == Codes::dense) return text;
  return text + ", a fold of " + std::to_string(f.fold) + (f.bias ? ", biases" : "") +
         (f.scale_bytes == 2 ? ", 16-bit scales" : ", 32-bit scales");
}

PackedLayout packed_layout(int64_t n, int64_t k, const std::optional<QuantLayout>& quant, DType scale_dtype) {
  PackedLayout layout;
  layout.row_tiles = (n + kTileRows - 1) / kTileRows;
  layout.k_tiles = (k + kTileK - 1) / kTileK;
  if (!quant) return layout;
  if (quant->group < 16 || !std::has_single_bit(static_cast<unsigned>(quant->group)))
    refuse(*quant, "groups are powers of two, 16 and more");
  layout.format = find_format(*quant, scale_dtype == DType::f32 ? 4 : 2);
  layout.groups = (layout.k_tiles * kTileK + quant->group - 1) / quant->group;
  layout.group_shift = std::countr_zero(static_cast<unsigned>(quant->group / layout.kernel_format().fold));
  layout.bf16_scales = scale_dtype == DType::bf16;
  return layout;
}

PackedBytes packed_bytes(const HostMatrix& m) {
  const PackedLayout layout = packed_layout(m.n, m.k, m.quant, m.scale_dtype);
  const auto tiles = static_cast<size_t>(layout.row_tiles);
  return {tiles * layout.code_bytes_per_row_tile(), tiles * layout.scale_bytes_per_row_tile()};
}

void pack_row_tiles(const HostMatrix& m, int64_t first, int64_t count, std::span<std::byte> codes,
                    std::span<std::byte> scales) {
  const PackedLayout layout = packed_layout(m.n, m.k, m.quant, m.scale_dtype);
  const size_t code_bytes = layout.code_bytes_per_row_tile(), scale_bytes = layout.scale_bytes_per_row_tile();
  CHECK_LE(first + count, layout.row_tiles);
  CHECK_EQ(codes.size(), static_cast<size_t>(count) * code_bytes);
  CHECK_EQ(scales.size(), static_cast<size_t>(count) * scale_bytes);
  const TilePacker pack(m, layout);
  for (int64_t i = 0; i < count; ++i) {
    pack.codes(first + i, codes.data() + static_cast<size_t>(i) * code_bytes);
    if (scale_bytes > 0) pack.scales(first + i, scales.data() + static_cast<size_t>(i) * scale_bytes);
  }
}

}  // namespace tramontane::cuda
