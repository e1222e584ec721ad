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
  const int64_t block_units = kPlanesBlockK / part.w.group;
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t row = 0; row < part.width; ++row)
      for (int64_t block = 0; block < part.w.blocks; ++block) {
        const int64_t count = units_of_block(part.w, block) * part.w.group;
        unsigned char* out = planes_at(part, tile, block) + row * kStepK;
        const bool exists = tile * 16 + row < part.rows;
        if (!exists || count % kStepK != 0) clear_row(part, steps_of_block(part.w, block), out);
        if (!exists) continue;
        quantise_block(part, part.x + (tile * 16 + row) * part.x_stride + block * kPlanesBlockK, count, out,
                       *steps_at(part, tile, block), sums_at(part, tile, block * block_units), row);
      }
}

// ---- Products

namespace {

// More rows than are taken at once: they go block by block, so that the weights of two panels stay in L1 for
// all of them.
constexpr int64_t kMostRows = 4;

inline __m512i four_bytes(const unsigned char* from) {
  int value;
  __builtin_memcpy(&value, from, 4);
  return _mm512_set1_epi32(value);
}

// Sums over one unit of codes times the high parts of q and times the low ones: P panels x R rows.
template <int P, int R>
struct UnitSums {
  __m512i high[P][R], low[P][R];

  // The panels' codes are `next` bytes apart; `planes` is where the rows' unit lies in its step.
  INLINED UnitSums(const PlanesPart& part, const unsigned char* codes, int64_t next,
                   const unsigned char* planes) {
    const int64_t tile = kStepK * part.width;
    const __m512i low_nibble = _mm512_set1_epi8(15);
    UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) high[p][r] = low[p][r] =
        _mm512_setzero_si512();
    // A chunk's low nibbles are of k, its high ones of k + group / 2.
    const int half = part.w.group / 2;
    const int64_t to_second = half == kStepK ? 2 * tile : half;
    for (int k = 0; k < half; k += 16) {
      UNROLLED for (int v = 0; v < 4; ++v, codes += 64) {
        __m512i first[P], second[P];
        UNROLLED for (int p = 0; p < P; ++p) {
          const __m512i chunk = _mm512_loadu_si512(codes + p * next);
          first[p] = _mm512_and_si512(chunk, low_nibble);
          second[p] = _mm512_and_si512(_mm512_srli_epi16(chunk, 4), low_nibble);
        }
        UNROLLED for (int r = 0; r < R; ++r) {
          const unsigned char* from = planes + k + v * 4 + r * kStepK;
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

// Fetches what is read 1 KB after a unit of this panel: where the panel ends before, that is the panel `next`
// further on.
inline void prefetch(const PlanesWeights& w, const unsigned char* panel, const unsigned char* unit,
                     int next) {
  const unsigned char* at = unit + 1024;
  if (at - panel >= w.panel_bytes) at += (next - 1) * w.panel_bytes;
  for (int64_t i = 0; i < w.unit_bytes; i += 64) __builtin_prefetch(at + i);
}

// One block of P panels x R rows from `row` on, all in one row tile. y takes the sums, and gives them but for
// the first block.
template <int P, int R, bool Bias>
void multiply_block(const PlanesPart& part, int64_t panel, int64_t row, int64_t block, bool fetch) {
  const PlanesWeights& w = part.w;
  const unsigned char* weights = block_of(part, panel, block);
  const unsigned char* planes = planes_at(part, row / 16, block) + row % 16 * kStepK;
  const PlanesSums* sums = sums_at(part, row / 16, block * (kPlanesBlockK / w.group));
  __m512 factors[P], inverse[P];
  __m512i high[P][R], low[P][R];
  UNROLLED for (int p = 0; p < P; ++p) {
    factors[p] = factors_of(weights + p * w.panel_bytes);
    inverse[p] = inverse_of(factors[p]);
    UNROLLED for (int r = 0; r < R; ++r) high[p][r] = low[p][r] = _mm512_setzero_si512();
  }
  const int64_t units = units_of_block(w, block);
  for (int64_t unit = 0; unit < units; ++unit) {
    const unsigned char* from = unit_of(w, weights, unit);
    for (int p = 0; fetch && p < P; ++p)
      prefetch(w, block_of(part, panel + p, 0), from + p * w.panel_bytes, P);
    const int64_t k = unit * w.group;
    const UnitSums<P, R> of(part, from + w.unit_scale_bytes, w.panel_bytes,
                            planes + k / kStepK * bytes_of_step(part) + k % kStepK);
    UNROLLED for (int p = 0; p < P; ++p) {
      const IntegerScales scales = scales_of<Bias>(w, from + p * w.panel_bytes, inverse[p]);
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
    UNROLLED for (int r = 0; r < R; ++r) {
      float* y = part.y + (row + r) * part.y_stride + (panel + p) * kPanelChannels;
      const __m512 before = _mm512_maskz_loadu_ps(block == 0 ? 0 : channels, y);
      _mm512_mask_storeu_ps(y, channels,
                            fold(before, high[p][r], low[p][r], factors[p], steps.of[row % 16 + r]));
    }
  }
}

template <int P, bool Bias>
void multiply_rows(const PlanesPart& part, int64_t panel, int64_t row, int64_t block, bool fetch) {
  const int64_t rows = part.last_row - row;
  if (rows == 1) return multiply_block<P, 1, Bias>(part, panel, row, block, fetch);
  if (rows == 2) return multiply_block<P, 2, Bias>(part, panel, row, block, fetch);
  if (rows == 3) return multiply_block<P, 3, Bias>(part, panel, row, block, fetch);
  multiply_block<P, 4, Bias>(part, panel, row, block, fetch);
}

template <int P, bool Bias>
void multiply_panels(const PlanesPart& part, int64_t panel) {
  for (int64_t block = 0; block < part.w.blocks; ++block)
    for (int64_t row = part.first_row; row < part.last_row; row += kMostRows)
      multiply_rows<P, Bias>(part, panel, row, block, row == part.first_row);
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
