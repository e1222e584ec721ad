// Quantised weights that are integers, or nearly, times x in integers: vpdpwssd, two products of 16 bits and
// their sum per 32-bit lane and instruction, at twice the rate of FP32 FMA. The walk and the packing are
// those of the vector kernels.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

#include "cpu/linear_integers.inc"

struct Isa {
  // As for vdpbf16ps, which the instruction is like.
  static constexpr int kTilePanels = 4, kTileRows = 6;
  static constexpr int kFoldRows = 12, kFoldPanels = 2;
  static constexpr int kExpandNibbleRows = 0, kExpandByteRows = 16;

  using Vec = __m512;    // 16 FP32 lanes
  using Pair = __m512i;  // 16 lanes of two integers of 16 bits
  using Table = __m512i;
  using Zero = __m512i;

  // Groups are summed in integers; each is worth a step of x.
  static constexpr bool kDense = false;
  using Sum = __m512i;
  static Sum no_sum() { return _mm512_setzero_si512(); }
  static Vec value(Sum sum, const float* x_steps, int64_t at) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sum), broadcast(x_steps[at]));
  }

  static Vec broadcast(float value) { return _mm512_set1_ps(value); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static __mmask16 first(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1); }
  static Vec load(const float* from, int lanes) { return _mm512_maskz_loadu_ps(first(lanes), from); }
  static void store(float* to, int lanes, Vec a) { _mm512_mask_storeu_ps(to, first(lanes), a); }
  static __m512i load_codes(const void* from) { return _mm512_load_si512(from); }
  static __m256i load_half(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

  static Vec load_scales(const unsigned char* from, ScaleType type) {
    if (type == ScaleType::f32) return _mm512_load_ps(from);
    if (type == ScaleType::f16) return _mm512_cvtph_ps(load_half(from));
    return bf16_at(reinterpret_cast<const uint16_t*>(from), 0);
  }

  static Sum multiply_add(Pair a, Pair b, Sum c) { return _mm512_dpwssd_epi32(c, a, b); }
  static Pair bf16_pair(const unsigned char* from) { return load_codes(from); }  // never taken
  static Pair broadcast_pair(const uint16_t* from) {
    int bits;
    __builtin_memcpy(&bits, from, 4);
    return _mm512_set1_epi32(bits);
  }

  // Twice, since vpermw reads 5 index bits of each 16: the nibble and one stray bit above it.
  static Table load_table(const PackedWeights& w) {
    const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(w.table_f32), broadcast(w.table_factor));
    const __m256i words = _mm512_cvtepi32_epi16(
        _mm512_cvt_roundps_epi32(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    return _mm512_inserti64x4(_mm512_castsi256_si512(words), words, 1);
  }
  template <int J>
  static Pair nibble_pair(const unsigned char* codes, Table table) {
    return _mm512_permutexvar_epi16(_mm512_srli_epi32(load_codes(codes), 4 * J), table);
  }

  static Zero load_zero(float code_zero) { return _mm512_set1_epi16(static_cast<int16_t>(code_zero)); }
  // Bytes 2J and 2J + 1 of every lane, each to 16 bits. For vpshufb: 80 gives a zero.
  static constexpr int pair_at(int j, int lane) {
    return static_cast<int>(0x80018000u) + (lane + 2 * j) * 0x10001;
  }
  template <int J>
  static Pair byte_pair(const unsigned char* codes, Zero zero) {
    const __m512i places = _mm512_set4_epi32(pair_at(J, 12), pair_at(J, 8), pair_at(J, 4), pair_at(J, 0));
    const __m512i bytes = _mm512_shuffle_epi8(load_codes(codes), places);
    return _mm512_sub_epi16(bytes, zero);
  }
};

#include "cpu/linear_tiles.inc"

void quantise_group(const LinearPart& part, int64_t row, int64_t g) {
  const int group = part.w.group;
  const int64_t at = row * (part.w.k / group) + g;
  const uint16_t* x = part.x + row * part.x_stride + g * group;
  int16_t* words = part.x_words + row * part.w.k + g * group;
  const GroupScale scale = scale_of(x, group);
  __m512i sum = _mm512_setzero_si512();
  for (int k = 0; k < group; k += 16) {
    const __m512i q = integers_at(x, k, scale);
    sum = _mm512_add_epi32(sum, q);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + k), _mm512_cvtepi32_epi16(q));
  }
  part.x_sums[at] = static_cast<float>(_mm512_reduce_add_epi32(sum)) * scale.step;
  part.x_steps[at] = scale.step / part.w.table_factor;
}

void quantise_rows(const LinearPart& part) {
  for (int64_t row = part.first_row; row < part.last_row; ++row)
    for (int64_t g = 0; g < part.w.k / part.w.group; ++g) quantise_group(part, row, g);
}

}  // namespace

const LinearKernels vnni_word_kernels{multiply_part, quantise_rows};

}  // namespace tramontane
