#include "engine/weights/quantize_rules.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tramontane {
namespace {

constexpr std::array<float, 16> kFp4{
    0.0f, 0x1.555556p-8f,  0x1.555556p-1f,  1.0f,  0x1.555556p-2f,  0.5f,  0x1.555556p-3f,  0.25f,
    0.0f, -0x1.555556p-8f, -0x1.555556p-1f, -1.0f, -0x1.555556p-2f, -0.5f, -0x1.555556p-3f, -0.25f};
constexpr std::array<float, 16> kNf4{-1.0f,           -0x1.647362p-1f, -0x1.0cd660p-1f, -0x1.946540p-2f,
                                     -0x1.23449ap-2f, -0x1.7a6a7ep-3f, -0x1.74f0e2p-4f, 0.0f,
                                     0x1.45f5fep-4f,  0x1.4995c6p-3f,  0x1.f809bap-3f,  0x1.5a0674p-2f,
                                     0x1.c34970p-2f,  0x1.200f56p-1f,  0x1.722766p-1f,  1.0f};

// The table in ascending order, and the midpoints between neighbours.
struct SortedTable {
  std::array<uint8_t, 16> code;
  std::array<float, 15> bound;
};

constexpr SortedTable sorted(const std::array<float, 16>& table, const std::array<uint8_t, 16>& order) {
  SortedTable result{order, {}};
  for (size_t i = 0; i < 15; ++i) result.bound[i] = (table[order[i]] + table[order[i + 1]]) / 2;
  return result;
}
// FP4 has two zeros, 0 and 8; which comes first is the order of torch.argsort.
constexpr SortedTable kSortedFp4 = sorted(kFp4, {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3});
constexpr SortedTable kSortedNf4 = sorted(kNf4, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});

// The code of the interval (bound[i-1], bound[i]] that holds `value`.
unsigned nearest(const SortedTable& table, float value) {
  size_t i = 0;
  for (const float bound : table.bound) i += bound < value ? 1 : 0;
  return table.code[i];
}

}  // namespace

const std::array<float, 16>& bitsandbytes_table(FourBit type) {
  return type == FourBit::fp4 ? kFp4 : kNf4;
}

float quantize_bitsandbytes_block(std::span<const float> block, FourBit type, uint8_t* out) {
  const SortedTable& table = type == FourBit::fp4 ? kSortedFp4 : kSortedNf4;
  float absmax = 0;
  for (const float w : block) absmax = std::max(absmax, std::fabs(w));
  const float inverse = 1.0f / std::max(absmax, 1e-38f);
  const auto code_of = [&](float w) { return nearest(table, std::clamp(w * inverse, -1.0f, 1.0f)); };
  for (size_t i = 0; i < block.size(); i += 2) {
    out[i / 2] = static_cast<uint8_t>(code_of(block[i]) << 4 | code_of(block[i + 1]));
  }
  return absmax;
}

AffineGroup quantize_mlx_group(std::span<const float> group, int bits, uint8_t* codes) {
  const float top = static_cast<float>((1 << bits) - 1);
  float low = std::numeric_limits<float>::infinity(), high = -low;
  for (const float w : group) {
    low = std::min(low, w);
    high = std::max(high, w);
  }
  const bool from_low = std::fabs(low) > std::fabs(high);
  const float edge = from_low ? low : high;
  const float step = std::max((high - low) / top, 1e-7f);
  AffineGroup result{from_low ? step : -step, 0};
  const float edge_steps = std::rint(edge / result.scale);
  if (edge_steps != 0) result = {edge / edge_steps, edge};  // a whole number of steps: zero is met exactly
  for (size_t i = 0; i < group.size(); ++i) {
    const float code = std::rint((group[i] - result.bias) / result.scale);
    codes[i] = static_cast<uint8_t>(std::clamp(code, 0.0f, top));
  }
  return result;
}

void pack_bit_stream(std::span<const uint8_t> codes, int bits, uint8_t* out) {
  uint32_t window = 0;
  int have = 0;
  for (const uint8_t code : codes) {
    window |= uint32_t{code} << have;
    for (have += bits; have >= 8; have -= 8) {
      *out++ = static_cast<uint8_t>(window);
      window >>= 8;
    }
  }
}

}  // namespace tramontane
