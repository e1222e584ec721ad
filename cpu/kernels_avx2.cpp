// The kernels for AVX2 with FMA. Compiled with those flags, entered only after cpu_features() found them.
#include <immintrin.h>

#include "cpu/kernels.h"

namespace tramontane {
namespace {

using Vec = __m256;
constexpr int kLanes = 8;
constexpr int kScoreVectors = 2;  // x 4 queries: 8 of the 16 registers
constexpr int kOutVectors = 2;

inline Vec zero() {
  return _mm256_setzero_ps();
}
inline Vec set1(float value) {
  return _mm256_set1_ps(value);
}
inline Vec load(const float* from) {
  return _mm256_loadu_ps(from);
}
inline void store(float* to, Vec v) {
  _mm256_storeu_ps(to, v);
}
inline Vec add(Vec a, Vec b) {
  return _mm256_add_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm256_mul_ps(a, b);
}
inline Vec div(Vec a, Vec b) {
  return _mm256_div_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline Vec min(Vec a, Vec b) {
  return _mm256_min_ps(a, b);
}
inline Vec max(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}

inline float reduce_add(Vec v) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
inline float reduce_max(Vec v) {
  __m128 top = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  top = _mm_max_ps(top, _mm_movehl_ps(top, top));
  return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

// All ones in lanes first <= i < last; both may lie outside 0..8.
inline Vec lanes(int first, int last) {
  const __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i from = _mm256_cmpgt_epi32(_mm256_set1_epi32(first), i),
                below = _mm256_cmpgt_epi32(_mm256_set1_epi32(last), i);
  return _mm256_castsi256_ps(_mm256_andnot_si256(from, below));
}
inline Vec keep(Vec v, int first, int last) {
  return _mm256_and_ps(lanes(first, last), v);
}
inline Vec select(Vec v, Vec other, int first, int last) {
  return _mm256_blendv_ps(other, v, lanes(first, last));
}

inline Vec round(Vec v) {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// Adds n to the exponents: v is near 1 and n between -126 and 127, so the result is normal. NaN has no use
// for it: it stays NaN.
inline Vec exp2_times(Vec v, Vec n) {
  const __m256i power =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(v, _mm256_castsi256_ps(power));
}

// The upper halves, rounded to nearest even; NaN stays NaN. As 32-bit lanes.
inline __m256i to_bf16(Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  return _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
}
inline void store_bf16(uint16_t* to, Vec v) {
  const __m256i wide = to_bf16(v);
  const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow);
}
inline void store_every_second(uint16_t* to, Vec v) {
  uint16_t values[kLanes];
  store_bf16(values, v);
  for (int i = 0; i < kLanes; ++i) to[2 * i] = values[i];
}

inline __m256i load_bf16_pairs(const uint16_t* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
inline Vec even_bf16(const uint16_t* at) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(load_bf16_pairs(at), 16));
}
inline Vec odd_bf16(const uint16_t* at) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(load_bf16_pairs(at), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// Pairs (a, b) by pairs (cos, sin): (a cos - b sin, b cos + a sin).
inline Vec rotate(Vec pairs, Vec rope) {
  const Vec swapped = _mm256_permute_ps(pairs, 0xb1);
  return _mm256_fmaddsub_ps(pairs, _mm256_moveldup_ps(rope),
                            _mm256_mul_ps(swapped, _mm256_movehdup_ps(rope)));
}

#include "cpu/kernels_vector.inc"

}  // namespace

const CpuKernels& avx2_kernels() {
  return kKernels;
}

}  // namespace tramontane
