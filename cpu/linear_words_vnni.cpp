// Quantised weights that are integers, or nearly, times x in integers: vpdpwssd, two products of 16 bits and
// their sum per 32-bit lane and instruction, at twice the rate of FP32 FMA. The walk and the packing are
// those of the vector kernels.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

#include "cpu/linear_integers.inc"

inline __m512i dot(__m512i a, __m512i b, __m512i c) {
  return _mm512_dpwssd_epi32(c, a, b);
}

#include "cpu/linear_words_avx512.inc"

#include "cpu/linear_tiles.inc"

#include "cpu/linear_quantised.inc"
#include "cpu/linear_words.inc"

}  // namespace

const LinearKernels vnni_word_kernels{multiply_quantised, quantise_rows};

}  // namespace tramontane
