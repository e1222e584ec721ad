// Rows of x to integers, and products by them with vpdpbusd: 16 channels x 4 of K against the same 4 of one
// row.
#include <immintrin.h>

#include "cpu/linear_planes_tile.h"

#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16")
#endif

namespace tramontane {
namespace {

#include "cpu/linear_integers.inc"
#include "cpu/linear_planes_unit.inc"

// ---- Rows to integers

// One group of a row, whose part of the unit's first tile is `out`; the next tile's lies `next_tile` further.
inline void quantise_group(const PlanesWeights& w, const uint16_t* x, unsigned char* out, int64_t next_tile,
                           PlanesScales& scales, int64_t row) {
  const GroupScale group = scale_of(x, w.group);
  const auto store = [&](int byte, __m512i values) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + byte / 64 * next_tile + byte % 64),
                     _mm512_cvtepi32_epi8(values));
  };
  __m512i sums = _mm512_setzero_si512();
  for (int k = 0; k < w.group; k += 16) {
    const __m512i q = integers_at(x, k, group);
    sums = _mm512_add_epi32(sums, q);
    store(k, _mm512_srai_epi32(q, 4));
    store(w.group + k, _mm512_and_si512(q, _mm512_set1_epi32(15)));
  }
  const int sum = _mm512_reduce_add_epi32(sums);
  const uint32_t base = group.finite ? (group.exponent + 13) << 23 | 1u << 22 : kNotANumber;
  scales.base[row] = of_bits(base);
  scales.offset[row] = static_cast<int>(base) - w.code_zero * sum;
  scales.sum[row] = static_cast<float>(sum) * group.step;
}

inline void clear_row(const PlanesWeights& w, unsigned char* out, int64_t next_tile, PlanesScales& scales,
                      int64_t row) {
  for (int byte = 0; byte < 2 * w.group; byte += 64)
    _mm512_storeu_si512(out + byte / 64 * next_tile, _mm512_setzero_si512());
  scales.base[row] = scales.sum[row] = 0;
  scales.offset[row] = 0;
}

}  // namespace

void quantise_rows(const PlanesPart& part, int64_t first, int64_t last) {
  const int64_t next_tile = int64_t{64} * part.width;
  for (int64_t tile = first; tile < last; ++tile)
    for (int64_t row = 0; row < part.width; ++row) {
      const uint16_t* x = part.x + (tile * 16 + row) * part.x_stride;
      for (int64_t unit = 0; unit < part.w.units; ++unit) {
        unsigned char* out = planes_at(part, tile, unit) + row * 64;
        PlanesScales& scales = *scales_at(part, tile, unit);
        if (tile * 16 + row < part.rows)
          quantise_group(part.w, x + unit * part.w.group, out, next_tile, scales, row);
        else
          clear_row(part.w, out, next_tile, scales, row);
      }
    }
}

// ---- Products

namespace {

// More rows than are taken at once: K goes in blocks, so that the weights of two panels stay in L1 for all
// rows.
constexpr int64_t kMostRows = 4, kBlockK = 1024;

inline __m512i four_bytes(const unsigned char* from) {
  int value;
  __builtin_memcpy(&value, from, 4);
  return _mm512_set1_epi32(value);
}

// Sums of codes * q over one unit: P panels whose units begin at `unit`, `next` bytes apart, x R rows from
// `planes` on.
template <int P, int R>
inline void sum_unit(const PlanesPart& part, const unsigned char* unit, int64_t next,
                     const unsigned char* planes, __m512i (&sums)[P][R]) {
  const PlanesWeights& w = part.w;
  const int64_t next_tile = int64_t{64} * part.width;
  const auto row_byte = [&](int byte) { return planes + byte / 64 * next_tile + byte % 64; };
  const __m512i low_nibble = _mm512_set1_epi8(15);
  __m512i high[P][R], low[P][R];
  UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) high[p][r] = low[p][r] =
      _mm512_setzero_si512();
  const unsigned char* codes = unit + w.unit_scale_bytes;
  // A chunk's low nibbles are of k, its high ones of k + group / 2.
  for (int k = 0; k < w.group / 2; k += 16) {
    const unsigned char *first_high = row_byte(k), *second_high = row_byte(w.group / 2 + k),
                        *first_low = row_byte(w.group + k), *second_low = row_byte(w.group + w.group / 2 + k);
    UNROLLED for (int v = 0; v < 4; ++v, codes += 64) {
      __m512i first[P], second[P];
      UNROLLED for (int p = 0; p < P; ++p) {
        const __m512i chunk = _mm512_loadu_si512(codes + p * next);
        first[p] = _mm512_and_si512(chunk, low_nibble);
        second[p] = _mm512_and_si512(_mm512_srli_epi16(chunk, 4), low_nibble);
      }
      UNROLLED for (int r = 0; r < R; ++r) {
        const auto add = [&](__m512i(&to)[P][R], const __m512i(&weights)[P], const unsigned char* from) {
          const __m512i q = four_bytes(from + v * 4 + r * 64);
          UNROLLED for (int p = 0; p < P; ++p) to[p][r] = _mm512_dpbusd_epi32(to[p][r], weights[p], q);
        };
        add(high, first, first_high);
        add(low, first, first_low);
        add(high, second, second_high);
        add(low, second, second_low);
      }
    }
  }
  UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) sums[p][r] =
      _mm512_add_epi32(_mm512_slli_epi32(high[p][r], 4), low[p][r]);
}

// P panels x R rows from `row` on, all in one row tile, units first..last. y takes the sums, and gives them
// where `first` is not the first unit.
template <int P, int R, bool Bias>
void multiply_units(const PlanesPart& part, int64_t panel, int64_t row, int64_t first, int64_t last,
                    bool fetch) {
  const PlanesWeights& w = part.w;
  const unsigned char* weights = panel_of(part, panel);
  const unsigned char* planes = planes_at(part, row / 16, first) + row % 16 * 64;
  const PlanesScales* scales = scales_at(part, row / 16, first);
  const int64_t next = next_unit(part, row / 16);
  float* y = part.y + row * part.y_stride + panel * kPanelChannels;
  const __mmask16 last_channels = first_lanes(w.n - (panel + P - 1) * kPanelChannels);
  const auto channels = [&](int p) { return p == P - 1 ? last_channels : static_cast<__mmask16>(0xffff); };
  __m512 total[P][R];
  UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r) total[p][r] =
      first == 0 ? _mm512_setzero_ps()
                 : _mm512_maskz_loadu_ps(channels(p), y + r * part.y_stride + p * kPanelChannels);
  for (int64_t unit = first; unit < last; ++unit, planes += next * planes_of_unit(part), scales += next) {
    const int64_t at = unit * w.unit_bytes;
    for (int p = 0; fetch && p < P; ++p) prefetch(w, weights + p * w.panel_bytes, at, P);
    __m512i sums[P][R];
    sum_unit<P, R>(part, weights + at, w.panel_bytes, planes, sums);
    UNROLLED for (int p = 0; p < P; ++p) {
      const unsigned char* from = weights + p * w.panel_bytes + at;
      const __m512 scale = load_16(from, w.scale_type), bias = Bias ? biases_of(w, from) : scale;
      UNROLLED for (int r = 0; r < R; ++r) total[p][r] =
          fold<Bias>(total[p][r], sums[p][r], *scales, row % 16 + r, scale, bias);
    }
  }
  UNROLLED for (int p = 0; p < P; ++p) UNROLLED for (int r = 0; r < R; ++r)
      _mm512_mask_storeu_ps(y + r * part.y_stride + p * kPanelChannels, channels(p), total[p][r]);
}

template <int P, bool Bias>
void multiply_rows(const PlanesPart& part, int64_t panel, int64_t row, int64_t rows, int64_t first,
                   int64_t last, bool fetch) {
  if (rows == 1) return multiply_units<P, 1, Bias>(part, panel, row, first, last, fetch);
  if (rows == 2) return multiply_units<P, 2, Bias>(part, panel, row, first, last, fetch);
  if (rows == 3) return multiply_units<P, 3, Bias>(part, panel, row, first, last, fetch);
  multiply_units<P, 4, Bias>(part, panel, row, first, last, fetch);
}

template <int P, bool Bias>
void multiply_panels(const PlanesPart& part, int64_t panel) {
  const bool few = part.last_row - part.first_row <= kMostRows;
  const int64_t block = few ? part.w.units : kBlockK / part.w.group;
  for (int64_t first = 0; first < part.w.units; first += block)
    for (int64_t row = part.first_row; row < part.last_row; row += kMostRows)
      multiply_rows<P, Bias>(part, panel, row, least(kMostRows, part.last_row - row), first,
                             least(first + block, part.w.units), row == part.first_row);
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
