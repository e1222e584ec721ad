// Rows of x to integers, and products by them with vpdpbusd: 16 channels x 4 of K against the same 4 of one
// row.
#include <immintrin.h>

#include "cpu/linear_planes_tile.h"

#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif
#define INLINED inline __attribute__((always_inline))

namespace tramontane {
namespace {

#include "cpu/linear_integers.inc"
#include "cpu/linear_planes_unit.inc"

// ---- Rows to integers

// One block of a row, whose part of the first step's high parts is `out`.
inline void quantise_block(const PlanesPart& part, const uint16_t* x, int64_t count, unsigned char* out,
                           PlanesSteps& steps, PlanesSums* sums, int64_t row) {
  const int64_t tile = kStepK * part.width;
  const BlockScale scale = scale_of<13>(x, static_cast<int>(count));
  for (int64_t first = 0; first < count; first += part.w.group, ++sums) {
    __m512i high_sum = _mm512_setzero_si512(), low_sum = high_sum;
    for (int64_t k = first; k < first + part.w.group; k += 16) {
      const __m512i q = integers_at(x, static_cast<int>(k), scale);
      const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(q, _mm512_set1_epi32(128)), 8);
      unsigned char* to = out + k / kStepK * 2 * tile + k % kStepK;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + tile), _mm512_cvtepi32_epi8(q));
      high_sum = _mm512_add_epi32(high_sum, high);
      low_sum = _mm512_add_epi32(low_sum, _mm512_sub_epi32(q, _mm512_slli_epi32(high, 8)));
    }
    sums->high[row] = _mm512_reduce_add_epi32(high_sum) & 0xffff;
    sums->low[row] = _mm512_reduce_add_epi32(low_sum) & 0xffff;
  }
  steps.of[row] = scale.step * 256;
}

// What tiles take beyond the rows and beyond k.
inline void clear_row(const PlanesPart& part, int64_t steps, unsigned char* out) {
  for (int64_t tile = 0; tile < 2 * steps; ++tile)
    _mm512_storeu_si512(out + tile * kStepK * part.width, _mm512_setzero_si512());
}

}  // namespace

void quantise_rows(const PlanesPart& part, int64_t first, int64_t last) {
  const int64_t block_units = part.w.block_k / part.w.group;
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t row = 0; row < part.width; ++row)
      for (int64_t block = 0; block < part.w.blocks; ++block) {
        const int64_t count = units_of_block(part.w, block) * part.w.group;
        unsigned char* out = planes_at(part, tile, block) + row * kStepK;
        const bool exists = tile * 16 + row < part.rows;
        if (!exists || count % kStepK != 0) clear_row(part, steps_of_block(part.w, block), out);
        if (!exists) continue;
        quantise_block(part, part.x + (tile * 16 + row) * part.x_stride + block * part.w.block_k, count, out,
                       *steps_at(part, tile, block), sums_at(part, tile, block * block_units), row);
      }
}

// ---- Products

namespace {

// Rows taken at once, and rows for all of which together it pays to expand a block first.
constexpr int64_t kMostRows = 4, kExpandRows = 17;

// One block of P panels as it is packed.
template <int P, bool Bias>
class PackedBlock {
 public:
  PackedBlock(const PlanesPart& part, int64_t panel, int64_t block)
      : w_(part.w), panel_(block_of(part, panel, 0)), block_(block_of(part, panel, block)) {
    UNROLLED for (int p = 0; p < P; ++p) inverse_[p] = inverse_of(factors_of(block_ + p * w_.panel_bytes));
  }

  // Chunk v of a unit's codes: of a k in its first half, and of the same in the second.
  INLINED void codes(int64_t unit, int64_t v, int p, __m512i& first, __m512i& second) const {
    const __m512i low = _mm512_set1_epi8(15);
    const __m512i chunk = _mm512_loadu_si512(at(unit, p) + w_.unit_scale_bytes + v * 64);
    first = _mm512_and_si512(chunk, low);
    second = _mm512_and_si512(_mm512_srli_epi16(chunk, 4), low);
  }

  INLINED IntegerScales scales(int64_t unit, int p) const {
    return scales_of<Bias>(w_, at(unit, p), inverse_[p]);
  }

  // Fetches what is read 1 KB after a unit: where a panel ends before, that is the one after those taken now.
  INLINED void prefetch(int64_t unit) const {
    const unsigned char* from = at(unit, 0) + 1024;
    if (from - panel_ >= w_.panel_bytes) from += (P - 1) * w_.panel_bytes;
    for (int p = 0; p < P; ++p)
      for (int64_t i = 0; i < w_.unit_bytes; i += 64) __builtin_prefetch(from + p * w_.panel_bytes + i);
  }

 private:
  INLINED const unsigned char* at(int64_t unit, int p) const {
    return unit_of(w_, block_ + p * w_.panel_bytes, unit);
  }

  const PlanesWeights& w_;
  const unsigned char *panel_, *block_;
  __m512 inverse_[P];
};

// The same, expanded.
template <int P>
class ExpandedBlock {
 public:
  template <bool Bias>
  ExpandedBlock(const PackedBlock<P, Bias>& packed, const PlanesPart& part, int64_t units)
      : panels_(part.scratch->expanded), group_(part.w.group) {
    for (int64_t unit = 0; unit < units; ++unit) {
      packed.prefetch(unit);
      for (int p = 0; p < P; ++p) {
        for (int64_t v = 0; v < group_ / 8; ++v) {
          __m512i first, second;
          packed.codes(unit, v, p, first, second);
          _mm512_store_si512(chunk(unit, v, p), first);
          _mm512_store_si512(chunk(unit, group_ / 8 + v, p), second);
        }
        const IntegerScales scales = packed.scales(unit, p);
        _mm512_store_si512(panels_[p].scales[unit][0], scales.scale);
        _mm512_store_si512(panels_[p].scales[unit][1], scales.bias);
      }
    }
  }

  INLINED void codes(int64_t unit, int64_t v, int p, __m512i& first, __m512i& second) const {
    first = _mm512_load_si512(chunk(unit, v, p));
    second = _mm512_load_si512(chunk(unit, group_ / 8 + v, p));
  }

  INLINED IntegerScales scales(int64_t unit, int p) const {
    const auto& both = panels_[p].scales[unit];
    return {_mm512_load_si512(both[0]), _mm512_load_si512(both[1])};
  }

  INLINED void prefetch(int64_t) const {}

 private:
  INLINED unsigned char* chunk(int64_t unit, int64_t v, int p) const {
    return panels_[p].codes + (unit * group_ / 4 + v) * 64;
  }

  PlanesExpanded* panels_;
  int64_t group_;
};

inline __m512i four_bytes(const unsigned char* from) {
  int value;
  __builtin_memcpy(&value, from, 4);
  return _mm512_set1_epi32(value);
}

// Sums over one unit of codes times the high parts of q and times the low ones: P panels x R rows.
template <int P, int R>
struct UnitSums {
  __m512i high[P][R], low[P][R];

  // `planes` is where the rows' unit lies in its step.
  template <class Block>
  INLINED UnitSums(const PlanesPart& part, const Block& block, int64_t unit, const unsigned char* planes) {
    UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) high[p][r] = low[p][r] =
        _mm512_setzero_si512();
    const int64_t tile = kStepK * part.width;
    const int half = part.w.group / 2;
    const int64_t to_second = half == kStepK ? 2 * tile : half;
    for (int first_v = 0; first_v < half / 4; first_v += 4) {
      UNROLLED for (int v = first_v; v < first_v + 4; ++v) {
        __m512i first[P], second[P];
        UNROLLED for (int p = 0; p < P; ++p) block.codes(unit, v, p, first[p], second[p]);
        UNROLLED for (int r = 0; r < R; ++r) {
          const unsigned char* from = planes + v * 4 + r * kStepK;
          add(high, r, first, from);
          add(low, r, first, from + tile);
          add(high, r, second, from + to_second);
          add(low, r, second, from + to_second + tile);
        }
      }
    }
  }

 private:
  INLINED static void add(__m512i (&to)[P][R], int r, const __m512i (&codes)[P], const unsigned char* from) {
    const __m512i q = four_bytes(from);
    UNROLLED for (int p = 0; p < P; ++p) to[p][r] = _mm512_dpbusd_epi32(to[p][r], codes[p], q);
  }
};

// One block of P panels x R rows from `row` on, all in one row tile. y takes the sums, and gives them but for
// the first block.
template <int P, int R, class Block>
void multiply_block(const PlanesPart& part, const Block& weights, int64_t panel, int64_t row, int64_t block) {
  const PlanesWeights& w = part.w;
  const unsigned char* planes = planes_at(part, row / 16, block) + row % 16 * kStepK;
  const PlanesSums* sums = sums_at(part, row / 16, block * (w.block_k / w.group));
  __m512i high[P][R], low[P][R];
  UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) high[p][r] = low[p][r] =
      _mm512_setzero_si512();
  for (int64_t unit = 0, units = units_of_block(w, block); unit < units; ++unit) {
    weights.prefetch(unit);
    const int64_t k = unit * w.group;
    const UnitSums<P, R> of(part, weights, unit, planes + k / kStepK * bytes_of_step(part) + k % kStepK);
    UNROLLED for (int p = 0; p < P; ++p) {
      const IntegerScales scales = weights.scales(unit, p);
      UNROLLED for (int r = 0; r < R; ++r) {
        const auto add = [&](__m512i& to, __m512i codes_q, int32_t q) {
          to = _mm512_add_epi32(to, _mm512_mullo_epi32(codes_q, scales.scale));
          to = _mm512_dpwssd_epi32(to, scales.bias, _mm512_set1_epi32(q));
        };
        add(high[p][r], of.high[p][r], sums[unit].high[row % 16 + r]);
        add(low[p][r], of.low[p][r], sums[unit].low[row % 16 + r]);
      }
    }
  }
  const PlanesSteps& steps = *steps_at(part, row / 16, block);
  UNROLLED for (int p = 0; p < P; ++p) {
    const __mmask16 channels = first_lanes(w.n - (panel + p) * kPanelChannels);
    const __m512 factors = factors_of(block_of(part, panel + p, block));
    UNROLLED for (int r = 0; r < R; ++r) {
      float* y = part.y + (row + r) * part.y_stride + (panel + p) * kPanelChannels;
      const __m512 before = _mm512_maskz_loadu_ps(block == 0 ? 0 : channels, y);
      _mm512_mask_storeu_ps(y, channels,
                            fold(before, high[p][r], low[p][r], factors, steps.of[row % 16 + r]));
    }
  }
}

// All rows of the part.
template <int P, class Block>
void multiply_rows(const PlanesPart& part, const Block& weights, int64_t panel, int64_t block) {
  int64_t row = part.first_row;
  for (; row + kMostRows <= part.last_row; row += kMostRows)
    multiply_block<P, kMostRows>(part, weights, panel, row, block);
  const int64_t rest = part.last_row - row;
  if (rest == 1) multiply_block<P, 1>(part, weights, panel, row, block);
  if (rest == 2) multiply_block<P, 2>(part, weights, panel, row, block);
  if (rest == 3) multiply_block<P, 3>(part, weights, panel, row, block);
}

template <int P, bool Bias>
void multiply_panels(const PlanesPart& part, int64_t panel) {
  for (int64_t block = 0; block < part.w.blocks; ++block) {
    const PackedBlock<P, Bias> packed(part, panel, block);
    if (part.last_row - part.first_row < kExpandRows)
      multiply_rows<P>(part, packed, panel, block);
    else
      multiply_rows<P>(part, ExpandedBlock<P>(packed, part, units_of_block(part.w, block)), panel, block);
  }
}

template <bool Bias>
void multiply_all(const PlanesPart& part) {
  int64_t panel = part.first_panel;
  for (; panel + 2 <= part.last_panel; panel += 2) multiply_panels<2, Bias>(part, panel);
  if (panel < part.last_panel) multiply_panels<1, Bias>(part, panel);
}

}  // namespace

void multiply_planes_vnni(const PlanesPart& part) {
  part.w.has_bias ? multiply_all<true>(part) : multiply_all<false>(part);
}

}  // namespace tramontane
