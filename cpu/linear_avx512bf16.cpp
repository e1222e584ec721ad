// vdpbf16ps: two BF16 products and their sum per FP32 lane and instruction. On Zen 4 twice the rate of FP32
// FMA.
#include <immintrin.h>

#include "cpu/linear_tile.h"

namespace tramontane {
namespace {

#include "cpu/linear_sixes_avx512.inc"

struct Isa {
  // 24 accumulators, 4 weight vectors, the row's pair, constants: 32 registers.
  static constexpr int kTilePanels = 4, kTileRows = 6;
  // From kFoldRows rows on, quantised tiles have kFoldPanels panels. Measured, as the next line is
  // (README.md).
  static constexpr int kFoldRows = 12, kFoldPanels = 2;
  // From how many rows on codes are unpacked once for all row tiles; 0: never.
  static constexpr int kExpandNibbleRows = 0, kExpandByteRows = 32;

  using Vec = __m512;     // 16 FP32 lanes
  using Pair = __m512bh;  // 16 lanes of two BF16
  using Table = __m512i;
  using Zero = __m512;

  // Groups are summed in FP32.
  using Sum = Vec;
  static Sum no_sum() { return broadcast(0); }
  static const Vec& value(const Sum& sum, const float*, int64_t) { return sum; }

  static Vec broadcast(float value) { return _mm512_set1_ps(value); }
  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static float sum_lanes(Vec a) { return _mm512_reduce_add_ps(a); }
  static __mmask16 first(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1); }
  static Vec load(const float* from, int lanes) { return _mm512_maskz_loadu_ps(first(lanes), from); }
  static void store(float* to, int lanes, Vec a) { _mm512_mask_storeu_ps(to, first(lanes), a); }
  static __m512i load_codes(const void* from) { return _mm512_load_si512(from); }
  static __m256i load_half(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

  static Vec load_bf16(const uint16_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_half(from)), 16));
  }
  static Vec load_scales(const unsigned char* from, ScaleType type) {
    if (type == ScaleType::f32) return _mm512_load_ps(from);
    if (type == ScaleType::f16) return _mm512_cvtph_ps(load_half(from));
    return load_bf16(reinterpret_cast<const uint16_t*>(from));
  }

  static Vec multiply_add(Pair a, Pair b, Vec c) { return _mm512_dpbf16_ps(c, a, b); }
  static Pair bf16_pair(const unsigned char* from) { return (Pair)load_codes(from); }
  static Pair broadcast_pair(const uint16_t* from) {
    int bits;
    __builtin_memcpy(&bits, from, 4);
    return (Pair)_mm512_set1_epi32(bits);
  }

  // vpermw reads 5 index bits of each 16: the nibble and one stray bit above it, which the doubled table
  // makes harmless.
  static Table load_table(const PackedWeights& w) { return _mm512_loadu_si512(w.table_bf16); }
  template <int J>
  static Pair nibble_pair(const unsigned char* codes, Table table) {
    return (Pair)_mm512_permutexvar_epi16(_mm512_srli_epi32(load_codes(codes), 4 * J), table);
  }

  // A byte below the exponent of 2^23 is 2^23 + byte; less 2^23 + zero it is the weight, exact in FP32 and in
  // BF16 (8 bits).
  static Zero load_zero(float code_zero) { return _mm512_set1_ps(0x1p23f + code_zero); }
  static __m512i byte_value(__m512i low_byte, Zero zero) {
    const __m512i exponent = _mm512_set1_epi32(0x4b000000);
    const __m512i value =
        _mm512_ternarylogic_epi32(low_byte, _mm512_set1_epi32(0xff), exponent, 0xea);  // (a & b) | c
    return _mm512_castps_si512(_mm512_sub_ps(_mm512_castsi512_ps(value), zero));
  }
  template <int J>
  static Pair byte_pair(const unsigned char* codes, Zero zero) {
    const __m512i even = byte_value(_mm512_srli_epi32(load_codes(codes), 16 * J), zero);
    const __m512i odd = byte_value(_mm512_srli_epi32(load_codes(codes), 16 * J + 8), zero);
    return (Pair)_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(even, 16), odd);
  }

  // The 64 numbers that codes of 6 bits stand for, exact in BF16: vpermi2w reads 6 index bits of each 16.
  struct Sixes {
    __m512i lower, upper;
  };
  static Sixes load_sixes(float code_zero) {
    alignas(64) uint32_t values[64];
    for (int i = 0; i < 64; ++i) {
      const float value = static_cast<float>(i) - code_zero;
      __builtin_memcpy(&values[i], &value, 4);
    }
    const auto bf16 = [&](int from) {
      return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_load_si512(values + from), 16));
    };
    return {_mm512_inserti64x4(_mm512_castsi256_si512(bf16(0)), bf16(16), 1),
            _mm512_inserti64x4(_mm512_castsi256_si512(bf16(32)), bf16(48), 1)};
  }
  template <int J>
  static Pair six_pair(const unsigned char* codes, const Sixes& values) {
    return (Pair)_mm512_permutex2var_epi16(values.lower, six_codes<J>(codes), values.upper);
  }
};

#include "cpu/linear_tiles.inc"

#include "cpu/linear_dense.inc"
#include "cpu/linear_quantised.inc"

void sum_groups(const LinearPart& part) {
  const int64_t groups = part.w.k / part.w.group;
  for (int64_t row = part.first_row; row < part.last_row; ++row)
    for (int64_t g = 0; g < groups; ++g) {
      const uint16_t* x = part.x + row * part.x_stride + g * part.w.group;
      Isa::Vec sum = Isa::load_bf16(x);
      for (int k = 16; k < part.w.group; k += 16) sum = Isa::add(sum, Isa::load_bf16(x + k));
      part.x_sums[row * groups + g] = Isa::sum_lanes(sum);
    }
}

void multiply_part(const LinearPart& part) {
  part.w.codes == WeightCodes::bf16 ? multiply_dense(part) : multiply_quantised(part);
}

}  // namespace

const LinearKernels avx512bf16_linear_kernels{multiply_part, sum_groups};

}  // namespace tramontane
