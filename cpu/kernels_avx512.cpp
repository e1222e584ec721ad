// The kernels for AVX-512 F, BW, VL and DQ. Compiled with those flags, entered only after cpu_features()
// found them.
#include <immintrin.h>

#include "cpu/kernels.h"

namespace tramontane {
namespace {

using Vec = __m512;
constexpr int kLanes = 16;
constexpr int kScoreVectors = 4;  // x 4 queries: 16 of the 32 registers, enough to hide the latency of fma
constexpr int kOutVectors = 4;

inline Vec zero() {
  return _mm512_setzero_ps();
}
inline Vec set1(float value) {
  return _mm512_set1_ps(value);
}
inline Vec load(const float* from) {
  return _mm512_loadu_ps(from);
}
inline void store(float* to, Vec v) {
  _mm512_storeu_ps(to, v);
}
inline Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
inline Vec div(Vec a, Vec b) {
  return _mm512_div_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline Vec min(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}
inline Vec max(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
inline float reduce_add(Vec v) {
  return _mm512_reduce_add_ps(v);
}
inline float reduce_max(Vec v) {
  return _mm512_reduce_max_ps(v);
}

// Bits first <= i < last; both may lie outside 0..16.
inline __mmask16 lanes(int first, int last) {
  const unsigned below_last = last <= 0 ? 0u : last >= kLanes ? 0xffffu : (1u << last) - 1;
  const unsigned below_first = first <= 0 ? 0u : first >= kLanes ? 0xffffu : (1u << first) - 1;
  return static_cast<__mmask16>(below_last & ~below_first);
}
inline Vec keep(Vec v, int first, int last) {
  return _mm512_maskz_mov_ps(lanes(first, last), v);
}
inline Vec select(Vec v, Vec other, int first, int last) {
  return _mm512_mask_mov_ps(other, lanes(first, last), v);
}

inline Vec round(Vec v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec exp2_times(Vec v, Vec n) {
  return _mm512_scalef_ps(v, n);
}

// The upper halves, rounded to nearest even; NaN stays NaN. As 32-bit lanes.
inline __m512i to_bf16(Vec v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
}
inline void store_bf16(uint16_t* to, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(to_bf16(v)));
}
// A masked store: the neighbours are not touched.
inline void store_every_second(uint16_t* to, Vec v) {
  _mm512_mask_storeu_epi16(to, 0x55555555u, to_bf16(v));
}

inline Vec even_bf16(const uint16_t* at) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(at), 16));
}
inline Vec odd_bf16(const uint16_t* at) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_loadu_si512(at), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Pairs (a, b) by pairs (cos, sin): (a cos - b sin, b cos + a sin).
inline Vec rotate(Vec pairs, Vec rope) {
  const Vec swapped = _mm512_permute_ps(pairs, 0xb1);
  return _mm512_fmaddsub_ps(pairs, _mm512_moveldup_ps(rope),
                            _mm512_mul_ps(swapped, _mm512_movehdup_ps(rope)));
}

#include "cpu/kernels_vector.inc"

}  // namespace

const CpuKernels& avx512_kernels() {
  return kKernels;
}

}  // namespace tramontane
