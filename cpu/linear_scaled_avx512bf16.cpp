// 4-bit weights with vdpbf16ps, scaled before they are multiplied: a weight is bf16(table[code] * scale +
// bias), both steps rounded to FP32 first. So the sums run over all of K in their accumulators, as BF16's do,
// and a group costs the same for 1 row and for 512: the 16 scaled values of each of its channels, which
// vpermi2w then looks up.
//
// A panel's 16 channels are four accumulators. Lane 4·q + p of accumulator a belongs to channel 4·q + a and
// adds the k pairs p, p + 4, p + 8, …, in order; the end adds the four lanes of a channel as (0 + 2) + (1 +
// 3). That order is one for every number of rows: where K is interrupted, accumulators rest in memory as they
// are.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

constexpr int kSums = 4;        // accumulators of a panel
constexpr int64_t kChunkK = 8;  // 64 bytes of codes: 16 channels x 8 k
constexpr int kFirstRows = 4;   // 16 accumulators and 8 registers of tables
constexpr int kTileRows = 6;    // 24 accumulators, 4 weight vectors, the row
constexpr int kPanels = 4;  // that each row tile of x meets while it is near: x is read once for 64 channels
constexpr int64_t kBlockK = 2048;    // 256 KiB of scaled weights and a tile's 24 KiB of x
constexpr int64_t kStripRows = 256;  // rows that share scaled weights: their interrupted sums are 256 KiB
// Bytes from what is read to what is fetched: one stream of memory would else wait for each of its lines.
constexpr int64_t kCodesAhead = 4096, kScalesAhead = 2048;

// Scaled weights of some panels and a K block, [k / 8][accumulator]; and the sums of a strip of rows,
// interrupted.
alignas(64) thread_local __m512i scaled_weights[kPanels][kBlockK / kChunkK * kSums];
alignas(64) thread_local __m512 resting_sums[kPanels][kStripRows * kSums];
// Scales (and biases) of a run of groups in FP32, as they are about to be used. Well ahead of their use: 64
// bytes stored are not forwarded to a load of 4 of them, which would wait until they are in L1.
constexpr int64_t kScaleGroups = 16;
alignas(64) thread_local float float_scales[kScaleGroups * 32];

// The 16 scaled values of 16 channels: entry 16·q + code of table a (low: q = 0, 1; high: 2, 3).
struct Tables {
  __m512i low[kSums], high[kSums];
};

// Rows first_row.. of a part times K first_k..last_k of a panel.
struct Tile {
  const LinearPart* part;
  int64_t panel, first_row, first_k, last_k;
  __m512i* weights;  // scaled
  __m512* resting;   // of the first row
};

const unsigned char* panel_of(const Tile& tile) {
  return tile.part->w.panels + tile.panel * tile.part->w.panel_bytes;
}

__m512 to_float(const unsigned char* from, ScaleType type) {
  if (type == ScaleType::f32) return _mm512_load_ps(from);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  if (type == ScaleType::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// The next groups' scales (and biases) as FP32.
inline const float* widen_scales(const PackedWeights& w, const unsigned char* scales, int64_t groups) {
  if (w.scale_type == ScaleType::f32) return reinterpret_cast<const float*>(scales);
  const int64_t vectors = groups * (w.has_bias ? 2 : 1);
  for (int64_t i = 0; i < vectors; ++i)
    _mm512_store_ps(float_scales + 16 * i, to_float(scales + 32 * i, w.scale_type));
  return float_scales;
}

// What biases ask for: `fused` where products are exact, 4-bit codes times 16-bit scales.
enum class Bias { none, fused, rounded };

// Tables of one group, whose 16 scales (and biases) are at `scales`.
template <Bias B>
inline Tables scaled_tables(const float* scales, __m512 table) {
  const auto values = [&](int channel) {
    const __m512 scale = _mm512_set1_ps(scales[channel]);
    if (B == Bias::none) return _mm512_mul_ps(table, scale);
    const __m512 bias = _mm512_set1_ps(scales[16 + channel]);
    if (B == Bias::fused) return _mm512_fmadd_ps(table, scale, bias);
    return _mm512_add_ps(_mm512_mul_ps(table, scale), bias);
  };
  Tables tables;
#pragma GCC unroll 4
  for (int a = 0; a < kSums; ++a) {
    tables.low[a] = (__m512i)_mm512_cvtne2ps_pbh(values(4 + a), values(a));
    tables.high[a] = (__m512i)_mm512_cvtne2ps_pbh(values(12 + a), values(8 + a));
  }
  return tables;
}

// Nibble a of each 16-bit word under the table of its 128-bit lane.
template <int A>
inline __m512i look_up(__m512i codes, const Tables& tables) {
  const __m512i lane = _mm512_set_epi64(0x0030003000300030, 0x0030003000300030, 0x0020002000200020,
                                        0x0020002000200020, 0x0010001000100010, 0x0010001000100010, 0, 0);
  const __m512i shifted = A == 0 ? codes : _mm512_srli_epi16(codes, 4 * A);
  const __m512i index = _mm512_ternarylogic_epi32(shifted, _mm512_set1_epi16(15), lane, 0xea);  // (a & b) | c
  return _mm512_permutex2var_epi16(tables.low[A], index, tables.high[A]);
}

// 8 k of a row, for each channel of an accumulator.
inline __m512i row_values(const uint16_t* x) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x)));
}

inline __m512 multiply_add(__m512i w, __m512i x, __m512 sum) {
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)x);
}

template <int R>
inline void load_sums(const Tile& tile, __m512 (&sums)[R][kSums]) {
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int a = 0; a < kSums; ++a)
      sums[r][a] = tile.first_k == 0 ? _mm512_setzero_ps() : tile.resting[r * kSums + a];
}

// The 16 channels of one row: 4 lanes each added up, and brought into order.
inline __m512 channel_sums(const __m512 (&sums)[kSums]) {
  const __m512 first =
      _mm512_add_ps(_mm512_unpacklo_ps(sums[0], sums[1]), _mm512_unpackhi_ps(sums[0], sums[1]));
  const __m512 second =
      _mm512_add_ps(_mm512_unpacklo_ps(sums[2], sums[3]), _mm512_unpackhi_ps(sums[2], sums[3]));
  return _mm512_add_ps(_mm512_shuffle_ps(first, second, 0x44), _mm512_shuffle_ps(first, second, 0xee));
}

template <int R>
inline void store_sums(const Tile& tile, const __m512 (&sums)[R][kSums]) {
  const LinearPart& part = *tile.part;
  if (tile.last_k < part.w.k) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int a = 0; a < kSums; ++a) tile.resting[r * kSums + a] = sums[r][a];
    return;
  }
  const int64_t left = part.w.n - tile.panel * kPanelChannels;
  const auto lanes = static_cast<__mmask16>(left >= kPanelChannels ? 0xffff : (1 << left) - 1);
  float* y = part.y + tile.first_row * part.y_stride + tile.panel * kPanelChannels;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) _mm512_mask_storeu_ps(y + r * part.y_stride, lanes, channel_sums(sums[r]));
}

template <int R, bool Keep, int A = 0>
inline void look_up_and_add(__m512 (&sums)[R][kSums], __m512i codes, const Tables& tables,
                            const __m512i (&x)[R], __m512i* out) {
  const __m512i weights = look_up<A>(codes, tables);
  if (Keep) out[A] = weights;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) sums[r][A] = multiply_add(weights, x[r], sums[r][A]);
  if constexpr (A + 1 < kSums) look_up_and_add<R, Keep, A + 1>(sums, codes, tables, x, out);
}

// The first R rows: scales the weights while it multiplies; Keep: leaves them in tile.weights for the other
// rows.
template <int R, bool Keep, Bias B>
void multiply_first(const Tile& tile) {
  const LinearPart& part = *tile.part;
  const PackedWeights& w = part.w;
  const __m512 table = _mm512_loadu_ps(w.table_f32);
  constexpr int kVectors = B == Bias::none ? 1 : 2;  // 16 scales, 16 biases
  const int64_t group_bytes = (w.scale_type == ScaleType::f32 ? 64 : 32) * kVectors;
  const unsigned char* scales = panel_of(tile) + tile.first_k / w.group * group_bytes;
  const unsigned char* codes = panel_of(tile) + w.scale_bytes + tile.first_k * kPanelChannels / 2;
  const uint16_t* x = part.x + tile.first_row * part.x_stride + tile.first_k;
  __m512i* out = tile.weights;
  __m512 sums[R][kSums];
  load_sums<R>(tile, sums);
  for (int64_t groups = (tile.last_k - tile.first_k) / w.group; groups > 0; groups -= kScaleGroups) {
    const int64_t count = groups < kScaleGroups ? groups : kScaleGroups;
    const float* floats = widen_scales(w, scales, count);
    for (const float* last = floats + count * 16 * kVectors; floats < last; floats += 16 * kVectors) {
      _mm_prefetch(scales + kScalesAhead, _MM_HINT_T0);
      scales += group_bytes;
      const Tables tables = scaled_tables<B>(floats, table);
      for (int k = 0; k < w.group; k += kChunkK, x += kChunkK, codes += 64, out += kSums) {
        _mm_prefetch(codes + kCodesAhead, _MM_HINT_T0);
        __m512i rows[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) rows[r] = row_values(x + r * part.x_stride);
        look_up_and_add<R, Keep>(sums, _mm512_load_si512(codes), tables, rows, out);
      }
    }
  }
  store_sums<R>(tile, sums);
}

// R more rows, by the weights that multiply_first kept.
template <int R>
void multiply_more(const Tile& tile) {
  const LinearPart& part = *tile.part;
  const uint16_t* x = part.x + tile.first_row * part.x_stride + tile.first_k;
  const __m512i* weights = tile.weights;
  __m512 sums[R][kSums];
  load_sums<R>(tile, sums);
  for (int64_t k = tile.first_k; k < tile.last_k; k += kChunkK, x += kChunkK, weights += kSums) {
    const __m512i w[kSums] = {weights[0], weights[1], weights[2], weights[3]};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const __m512i row = row_values(x + r * part.x_stride);
#pragma GCC unroll 4
      for (int a = 0; a < kSums; ++a) sums[r][a] = multiply_add(w[a], row, sums[r][a]);
    }
  }
  store_sums<R>(tile, sums);
}

template <bool Keep, int R = kFirstRows>
void multiply_first_rows(const Tile& tile, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_first_rows<Keep, R - 1>(tile, rows);
  }
  const PackedWeights& w = tile.part->w;
  if (!w.has_bias) return multiply_first<R, Keep, Bias::none>(tile);
  if (w.scale_type == ScaleType::f32) return multiply_first<R, Keep, Bias::rounded>(tile);
  multiply_first<R, Keep, Bias::fused>(tile);
}

template <int R = kTileRows>
void multiply_more_rows(const Tile& tile, int64_t rows) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_more_rows<R - 1>(tile, rows);
  }
  multiply_more<R>(tile);
}

// What multiply_first reads before it has fetched anything itself.
void prefetch_start(const Tile& tile) {
  const PackedWeights& w = tile.part->w;
  const int64_t group_bytes = (w.scale_type == ScaleType::f32 ? 64 : 32) * (w.has_bias ? 2 : 1);
  const unsigned char* scales = panel_of(tile) + tile.first_k / w.group * group_bytes;
  const unsigned char* codes = panel_of(tile) + w.scale_bytes + tile.first_k * kPanelChannels / 2;
  for (int64_t at = 0; at < kScalesAhead; at += 64) _mm_prefetch(scales + at, _MM_HINT_T0);
  for (int64_t at = 0; at < kCodesAhead; at += 64) _mm_prefetch(codes + at, _MM_HINT_T0);
}

// More than kFirstRows rows times one K block of `count` panels: those rows first, then the others in tiles
// of equal height.
void multiply_block(const Tile (&tiles)[kPanels], int count, int64_t rows) {
  for (int p = 0; p < count; ++p) {
    if (p + 1 < count) prefetch_start(tiles[p + 1]);
    multiply_first_rows<true>(tiles[p], kFirstRows);
  }
  Tile next = tiles[0];  // while the other rows are multiplied
  next.first_k = next.last_k;
  if (next.last_k == next.part->w.k) {
    next.first_k = 0;
    next.panel += count;
  }
  if (next.panel < next.part->last_panel) prefetch_start(next);
  const int64_t more = rows - kFirstRows, heights = (more + kTileRows - 1) / kTileRows;
  for (int64_t t = 0; t < heights; ++t) {
    const int64_t first = kFirstRows + more * t / heights, last = kFirstRows + more * (t + 1) / heights;
    for (int p = 0; p < count; ++p) {
      Tile tile = tiles[p];
      tile.first_row += first;
      tile.resting += first * kSums;
      multiply_more_rows(tile, last - first);
    }
  }
}

void multiply_panels(const LinearPart& part, int64_t panel, int count, int64_t first_row, int64_t rows) {
  const int64_t k = part.w.k, block = rows <= kFirstRows ? k : kBlockK;
  for (int64_t first_k = 0; first_k < k; first_k += block) {
    Tile tiles[kPanels];
    for (int p = 0; p < count; ++p)
      tiles[p] = {&part,
                  panel + p,
                  first_row,
                  first_k,
                  first_k + block < k ? first_k + block : k,
                  scaled_weights[p],
                  resting_sums[p]};
    if (rows > kFirstRows) {
      multiply_block(tiles, count, rows);
      continue;
    }
    for (int p = 0; p < count; ++p) multiply_first_rows<false>(tiles[p], rows);
  }
}

}  // namespace

void multiply_scaled_avx512bf16(const LinearPart& part) {
  for (int64_t row = part.first_row; row < part.last_row; row += kStripRows) {
    const int64_t left = part.last_row - row, rows = left < kStripRows ? left : kStripRows;
    for (int64_t panel = part.first_panel; panel < part.last_panel; panel += kPanels) {
      const int64_t panels = part.last_panel - panel;
      multiply_panels(part, panel, panels < kPanels ? static_cast<int>(panels) : kPanels, row, rows);
    }
  }
}

}  // namespace tramontane
