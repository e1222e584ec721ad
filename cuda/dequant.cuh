// From packed codes (pack.h) to the BF16 operands of mma, in registers. Codes become exact BF16 numbers
// wherever the format allows (all but NF4's table); scales never touch them: they multiply FP32 sums, once
// per group (linear_tile.cuh).
//
// A byte b below 128 under the high byte 0x43 is the BF16 number 128 + b, so that one lop3 makes two numbers
// and one fma per pair takes the 128 off, exactly.
//
// Instructions for 8 weights of a lane, ALU (lop3, shift, prmt: half rate) + FMA pipe:
//   affine4 7 + 4    fp4 15 + 4    codebook4 21    affine8 10 + 8    dense 0
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "cuda/pack.h"
#include "cuda/ptx.cuh"

namespace tramontane::cuda {

// A packed matrix as a kernel's parameter.
struct PackedWeight {
  const std::byte* codes;
  const std::byte* scales;
  int n, k;
  int row_tiles, k_tiles, segment_tiles;
  int groups, group_shift;
  bool bf16_scales;
  uint32_t ones;  // a BF16 pair
  // BF16 pair of -(128 + code_zero) for affine4, of -(256 + code_zero) for affine8, of -128 for fp4
  uint32_t offset;
  // codebook4: the low bytes of entries 0..15, then their high bytes
  uint32_t table[8];
};

// What is known of a format at compile time.
template <PackedFormat kFormat>
struct Format {
  static constexpr int kFold = kFormat.fold, kScaleBytes = kFormat.scale_bytes;
  static constexpr Codes kCodes = kFormat.codes;
  static constexpr bool kDense = kCodes == Codes::dense;
  static constexpr bool kBias = kFormat.bias;
  static constexpr bool kNarrow = kFormat.fold == 16;  // a lane's inputs come four at a time
  static constexpr int kWords = words_per_tile(kCodes);
  static constexpr int kFoldSteps = kFormat.fold / 16;  // steps between two folds
  static constexpr int kFolds = kTileSteps / kFoldSteps;
  static constexpr int kScaleEntry = bytes_per_scale_entry(kFormat);
};

// One lane's words of one tile.
template <class F>
struct TileCodes {
  uint4 words[F::kWords];

  static constexpr int kBytes = F::kWords * kLanes * kWordBytes;  // of all lanes

  // `at`: this lane's first word.
  __device__ __forceinline__ void load(const std::byte* at) {
#pragma unroll
    for (int v = 0; v < F::kWords; ++v) words[v] = ptx::load_stream_16(at + v * kLanes * kWordBytes);
  }
};

// Where a lane's first word of a tile lies in memory.
template <class F>
__device__ __forceinline__ const std::byte* code_address(const PackedWeight& w, int row_tile, int k_tile,
                                                         int lane) {
  return w.codes + (int64_t{row_tile} * w.k_tiles + k_tile) * TileCodes<F>::kBytes + lane * kWordBytes;
}

__device__ __forceinline__ uint32_t component(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Nibble i and i + 4 are operand i.
__device__ __forceinline__ void expand_affine4(uint32_t q, const PackedWeight& w, uint32_t (&a)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j)
    a[j] = ptx::fma_bf16x2(ptx::and_or<0x000f000fu, 0x43004300u>(q >> (4 * j)), w.ones, w.offset);
}

// Magnitudes as low bytes of 128 + {0, 1, 128, 192, 64, 96, 32, 48}: 128 is 0x4300, 256 is 0x4380, 320 is
// 0x43a0.
__device__ __forceinline__ void expand_fp4(uint32_t q, const PackedWeight& w, uint32_t (&a)[4]) {
  constexpr uint32_t kLow = 0xa0800100u, kHigh = 0x30206040u;
  const uint32_t selectors = q & 0x77777777u;
  const uint32_t bytes[2] = {ptx::permute(kLow, kHigh, selectors),
                             ptx::permute(kLow, kHigh, selectors >> 16)};
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t shifted = ptx::permute(bytes[j / 2], 0x43434343u, j % 2 == 0 ? 0x4240u : 0x4341u);
    a[j] = ptx::and_xor<0x80008000u>(q << (12 - 4 * j), ptx::fma_bf16x2(shifted, w.ones, w.offset));
  }
}

// Low and high bytes of four entries each out of 16; then pairs of bytes as numbers.
__device__ __forceinline__ void expand_codebook4(uint32_t q, const uint32_t (&table)[8], uint32_t (&a)[4]) {
  const uint32_t low3 = q & 0x77777777u;
  const uint32_t upper_half =
      ptx::and_or<0x44444444u, 0x32103210u>(q >> 1);  // byte i of the second where bit 3 is set
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t s = low3 >> (16 * half), pick = upper_half >> (16 * half);
    const uint32_t low =
        ptx::permute(ptx::permute(table[0], table[1], s), ptx::permute(table[2], table[3], s), pick);
    const uint32_t high =
        ptx::permute(ptx::permute(table[4], table[5], s), ptx::permute(table[6], table[7], s), pick);
    a[2 * half] = ptx::permute(low, high, 0x6240u);
    a[2 * half + 1] = ptx::permute(low, high, 0x7351u);
  }
}

// Two codes in bytes 0 and 2: (128 + low 7 bits) - (256 + zero), and then 128, or 256 where the eighth bit is
// set. Every number on the way is a whole one of at most 256.
__device__ __forceinline__ uint32_t expand_bytes(uint32_t q, const PackedWeight& w) {
  const uint32_t low = ptx::and_or<0x007f007fu, 0x43004300u>(q),
                 top = ptx::and_or<0x00800080u, 0x43004300u>(q);
  return ptx::fma_bf16x2(ptx::fma_bf16x2(low, w.ones, w.offset), w.ones, top);
}

// The A operand of one step.
template <class F>
__device__ __forceinline__ void expand(const TileCodes<F>& tile, int step, const PackedWeight& w,
                                       uint32_t (&a)[4]) {
  if constexpr (F::kCodes == Codes::affine4) {
    expand_affine4(component(tile.words[0], step), w, a);
  } else if constexpr (F::kCodes == Codes::fp4) {
    expand_fp4(component(tile.words[0], step), w, a);
  } else if constexpr (F::kCodes == Codes::codebook4) {
    expand_codebook4(component(tile.words[0], step), w.table, a);
  } else if constexpr (F::kCodes == Codes::affine8) {
    const uint4 words = step < 2 ? tile.words[0] : tile.words[1];  // no index: registers have none
    const uint32_t first = component(words, 2 * (step % 2)), second = component(words, 2 * (step % 2) + 1);
    a[0] = expand_bytes(first, w);
    a[1] = expand_bytes(first >> 8, w);
    a[2] = expand_bytes(second, w);
    a[3] = expand_bytes(second >> 8, w);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) a[j] = component(tile.words[step], j);
  }
}

// Scales (and biases) of rows g and g + 8.
struct RowScales {
  float scale[2], bias[2];
};

__device__ __forceinline__ float2 two_floats(uint32_t pair, bool bf16) {
  if (bf16) return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// An entry as it lies in memory; turned into floats only where it is used, so that few registers wait.
template <class F>
struct ScaleEntry {
  static constexpr int kWords = F::kScaleEntry / 4;  // 1, 2 or 4
  uint32_t words[kWords > 0 ? kWords : 1];

  __device__ __forceinline__ void load(const std::byte* at) {
    if constexpr (kWords == 1) {
      words[0] = *reinterpret_cast<const uint32_t*>(at);
    } else if constexpr (kWords == 2) {
      const uint2 v = *reinterpret_cast<const uint2*>(at);
      words[0] = v.x, words[1] = v.y;
    } else if constexpr (kWords == 4) {
      const uint4 v = *reinterpret_cast<const uint4*>(at);
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    }
  }

  __device__ __forceinline__ RowScales floats(const PackedWeight& w) const {
    RowScales r{};
    if constexpr (F::kScaleBytes == 2) {
      const float2 scale = two_floats(words[0], w.bf16_scales);
      r.scale[0] = scale.x, r.scale[1] = scale.y;
      if constexpr (F::kBias) {
        const float2 bias = two_floats(words[1], w.bf16_scales);
        r.bias[0] = bias.x, r.bias[1] = bias.y;
      }
    } else if constexpr (F::kScaleBytes == 4) {
      r.scale[0] = __uint_as_float(words[0]), r.scale[1] = __uint_as_float(words[1]);
      if constexpr (F::kBias) r.bias[0] = __uint_as_float(words[2]), r.bias[1] = __uint_as_float(words[3]);
      if constexpr (F::kCodes == Codes::fp4) {
        r.scale[0] = __fmul_rn(r.scale[0], 1.0f / 192.0f);
        r.scale[1] = __fmul_rn(r.scale[1], 1.0f / 192.0f);
      }
    }
    return r;
  }
};

// Where row g's first entry of a row tile lies in memory, and from there that of a fold.
template <class F>
__device__ __forceinline__ const std::byte* scale_address(const PackedWeight& w, int row_tile, int g) {
  return w.scales + (int64_t{row_tile} * w.groups * 8 + g) * F::kScaleEntry;
}
template <class F>
__device__ __forceinline__ uint32_t scale_offset(const PackedWeight& w, int k_tile, int fold) {
  return (static_cast<uint32_t>(k_tile * F::kFolds + fold) >> w.group_shift) * (8 * F::kScaleEntry);
}

// One lane's scales of one tile.
template <class F>
struct TileScales {
  ScaleEntry<F> folds[F::kDense ? 1 : F::kFolds];

  // `first`: scale_address.
  __device__ __forceinline__ void load(const PackedWeight& w, const std::byte* first, int k_tile) {
    if constexpr (!F::kDense) {
#pragma unroll
      for (int f = 0; f < F::kFolds; ++f) folds[f].load(first + scale_offset<F>(w, k_tile, f));
    }
  }
};

}  // namespace tramontane::cuda
