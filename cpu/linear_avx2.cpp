// AVX2 + FMA + F16C: the 16 channels of a panel are two vectors of 8, a k pair is two FMAs of each, or one
// vpmaddwd.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

// What both kinds of kernels are made of.
struct Avx2 {
  // 8 accumulators, 4 weight vectors, 2 of the row: 16 registers.
  static constexpr int kTilePanels = 1, kTileRows = 4;

  struct Vec {
    __m256 low, high;  // channels 0..7 and 8..15
  };
  static Vec broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
  static Vec fma(const Vec& a, const Vec& b, const Vec& c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }

  static __m256i first(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Vec load(const float* from, int lanes) {
    return {_mm256_maskload_ps(from, first(lanes)), _mm256_maskload_ps(from + 8, first(lanes - 8))};
  }
  static void store(float* to, int lanes, const Vec& a) {
    _mm256_maskstore_ps(to, first(lanes), a.low);
    _mm256_maskstore_ps(to + 8, first(lanes - 8), a.high);
  }
  static __m256i load_codes(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }
};

namespace floats {

struct Isa : Avx2 {
  struct Pair {
    Vec even, odd;  // weights k and k+1 of 16 channels; or x[k] and x[k+1] in every lane
  };
  using Sum = Vec;

  static Vec multiply_add(const Pair& a, const Pair& b, const Vec& c) {
    return fma(a.odd, b.odd, fma(a.even, b.even, c));
  }
  static Pair widen(__m256i low, __m256i high) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
    return {
        {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))},
        {_mm256_castsi256_ps(_mm256_and_si256(low, upper)),
         _mm256_castsi256_ps(_mm256_and_si256(high, upper))}};
  }
  static Pair bf16_pair(const unsigned char* from) { return widen(load_codes(from), load_codes(from + 32)); }
  static Pair broadcast_pair(const uint16_t* from) {
    int bits;
    __builtin_memcpy(&bits, from, 4);
    return widen(_mm256_set1_epi32(bits), _mm256_set1_epi32(bits));
  }
};

#include "cpu/linear_tiles.inc"

#include "cpu/linear_dense.inc"

}  // namespace floats

// Quantised weights as integers: vpmaddwd, two products of 16 bits and their sum per 32-bit lane.
namespace words {

#include "cpu/linear_integers.inc"

struct Isa : Avx2 {
  // From kFoldRows rows on, quantised tiles have kFoldPanels panels. Measured, as the next line is
  // (README.md).
  static constexpr int kFoldRows = 1, kFoldPanels = 1;
  // From how many rows on codes are unpacked once for all row tiles; 0: never.
  static constexpr int kExpandNibbleRows = 12, kExpandByteRows = 12;

  struct Pair {
    __m256i low, high;  // channels 0..7 and 8..15: integers k and k+1 of 16 bits
  };
  struct Table {
    __m256i low_bytes, high_bytes;  // of 16 entries, twice
  };
  using Zero = __m256i;

  using Sum = Pair;  // 32 bits
  static Sum no_sum() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Vec value(const Sum& sum, const float* x_steps, int64_t at) {
    const __m256 step = _mm256_set1_ps(x_steps[at]);
    return {_mm256_mul_ps(_mm256_cvtepi32_ps(sum.low), step),
            _mm256_mul_ps(_mm256_cvtepi32_ps(sum.high), step)};
  }

  static Sum multiply_add(const Pair& a, const Pair& b, const Sum& c) {
    return {_mm256_add_epi32(c.low, _mm256_madd_epi16(a.low, b.low)),
            _mm256_add_epi32(c.high, _mm256_madd_epi16(a.high, b.high))};
  }
  static Pair broadcast_pair(const uint16_t* from) {
    int bits;
    __builtin_memcpy(&bits, from, 4);
    return {_mm256_set1_epi32(bits), _mm256_set1_epi32(bits)};
  }

  static __m128i load_half(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
  static __m256 widen_half(const uint16_t* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_half(from)), 16));
  }

  static Vec load_bf16(const uint16_t* from) { return {widen_half(from), widen_half(from + 8)}; }
  static Vec load_scales(const unsigned char* from, ScaleType type) {
    if (type == ScaleType::f32) {
      const auto* floats = reinterpret_cast<const float*>(from);
      return {_mm256_load_ps(floats), _mm256_load_ps(floats + 8)};
    }
    if (type == ScaleType::f16)
      return {_mm256_cvtph_ps(load_half(from)), _mm256_cvtph_ps(load_half(from + 16))};
    return load_bf16(reinterpret_cast<const uint16_t*>(from));
  }

  // Of 16 entries of 16 bits.
  static Table split_table(const uint16_t* entries) {
    alignas(32) unsigned char low[32], high[32];
    for (int i = 0; i < 32; ++i) {
      low[i] = static_cast<unsigned char>(entries[i % 16] & 0xff);
      high[i] = static_cast<unsigned char>(entries[i % 16] >> 8);
    }
    return {load_codes(low), load_codes(high)};
  }
  // vpshufb looks up the two bytes of an entry apart. The nibbles of pairs J and J+2 lie in the even and odd
  // bytes of the same mask, so that the compiler shares the lookups of the two.
  template <int J>
  static __m256i lookup_pair(const unsigned char* codes, const Table& table) {
    const __m256i nibbles =
        _mm256_and_si256(_mm256_srli_epi32(load_codes(codes), 4 * (J % 2)), _mm256_set1_epi8(15));
    const __m256i low = _mm256_shuffle_epi8(table.low_bytes, nibbles);
    const __m256i high = _mm256_shuffle_epi8(table.high_bytes, nibbles);
    const __m256i lower = _mm256_set1_epi16(0xff);
    if (J < 2) return _mm256_or_si256(_mm256_and_si256(lower, low), _mm256_slli_epi16(high, 8));
    return _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(lower, high));
  }
  static Table load_table(const PackedWeights& w) {
    uint16_t entries[16];
    for (int i = 0; i < 16; ++i) {
      const __m128 scaled = _mm_set_ss(w.table_f32[i] * w.table_factor);
      entries[i] = static_cast<uint16_t>(_mm_cvtss_si32(scaled));
    }
    return split_table(entries);
  }
  template <int J>
  static Pair nibble_pair(const unsigned char* codes, const Table& table) {
    return {lookup_pair<J>(codes, table), lookup_pair<J>(codes + 32, table)};
  }

  static Zero load_zero(float code_zero) { return _mm256_set1_epi16(static_cast<int16_t>(code_zero)); }
  // Bytes 2J and 2J + 1 of every lane, each to 16 bits. For vpshufb: 80 gives a zero.
  static constexpr int pair_at(int j, int lane) {
    return static_cast<int>(0x80018000u) + (lane + 2 * j) * 0x10001;
  }
  template <int J>
  static __m256i byte_words(const unsigned char* codes, Zero zero) {
    const __m256i places = _mm256_setr_epi32(pair_at(J, 0), pair_at(J, 4), pair_at(J, 8), pair_at(J, 12),
                                             pair_at(J, 0), pair_at(J, 4), pair_at(J, 8), pair_at(J, 12));
    return _mm256_sub_epi16(_mm256_shuffle_epi8(load_codes(codes), places), zero);
  }
  template <int J>
  static Pair byte_pair(const unsigned char* codes, Zero zero) {
    return {byte_words<J>(codes, zero), byte_words<J>(codes + 32, zero)};
  }

  using Sixes = Zero;
  static Sixes load_sixes(float code_zero) { return load_zero(code_zero); }
  template <int J>
  static __m256i six_words(const unsigned char* codes, Sixes zero) {
    const __m256i low = _mm256_srli_epi32(load_codes(codes + J / 4 * 64), 4 * (J % 4));
    const __m256i high = load_codes(codes + 128);
    const __m256i moved = J < 2 ? _mm256_slli_epi32(high, 4 - 2 * J) : _mm256_srli_epi32(high, 2 * J - 4);
    const __m256i code = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi16(0x0f)),
                                         _mm256_and_si256(moved, _mm256_set1_epi16(0x30)));
    return _mm256_sub_epi16(code, zero);
  }
  template <int J>
  static Pair six_pair(const unsigned char* codes, Sixes zero) {
    return {six_words<J>(codes, zero), six_words<J>(codes + 32, zero)};
  }
};

#include "cpu/linear_tiles.inc"

#include "cpu/linear_quantised.inc"
#include "cpu/linear_words.inc"

}  // namespace words

}  // namespace

const LinearKernels avx2_linear_kernels{floats::multiply_dense, nullptr};
const LinearKernels avx2_word_kernels{words::multiply_quantised, words::quantise_rows};

}  // namespace tramontane
