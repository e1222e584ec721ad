// AVX-512 without BF16 products: weights and rows become FP32, a k pair is two FMAs.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

namespace floats {

struct Isa {
  static constexpr int kTilePanels = 4, kTileRows = 4;  // 16 accumulators, 8 weight vectors, 2 of the row

  using Vec = __m512;
  struct Pair {
    Vec even, odd;  // weights k and k+1 of 16 channels; or x[k] and x[k+1] in every lane
  };
  using Sum = Vec;

  static Vec broadcast(float value) { return _mm512_set1_ps(value); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static __mmask16 first(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1); }
  static Vec load(const float* from, int lanes) { return _mm512_maskz_loadu_ps(first(lanes), from); }
  static void store(float* to, int lanes, Vec a) { _mm512_mask_storeu_ps(to, first(lanes), a); }
  static __m512i load_codes(const void* from) { return _mm512_load_si512(from); }

  static Vec multiply_add(Pair a, Pair b, Vec c) { return fma(a.odd, b.odd, fma(a.even, b.even, c)); }
  static Pair widen(__m512i pairs) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)),
            _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
  }
  static Pair bf16_pair(const unsigned char* from) { return widen(load_codes(from)); }
  static Pair broadcast_pair(const uint16_t* from) {
    int bits;
    __builtin_memcpy(&bits, from, 4);
    return widen(_mm512_set1_epi32(bits));
  }
};

#include "cpu/linear_tiles.inc"

#include "cpu/linear_dense.inc"

}  // namespace floats

// Quantised weights as integers.
namespace words {

#include "cpu/linear_integers.inc"

inline __m512i dot(__m512i a, __m512i b, __m512i c) {
  return _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
}

#include "cpu/linear_words_avx512.inc"

#include "cpu/linear_tiles.inc"

#include "cpu/linear_quantised.inc"
#include "cpu/linear_words.inc"

}  // namespace words

}  // namespace

const LinearKernels avx512_linear_kernels{floats::multiply_dense, nullptr};
const LinearKernels avx512_word_kernels{words::multiply_quantised, words::quantise_rows};

}  // namespace tramontane
