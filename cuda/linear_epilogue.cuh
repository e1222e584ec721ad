// What becomes of a product's outputs: stored or added, turned and appended to the KV cache, or
// SiLU(gate)·up. The same for every kernel of linear.h, whatever rows it is for.
//
// A kernel hands over pairs: outputs `output` (even) and output + 1 of one row of x, of each row tile of a
// unit. A unit is what must meet in one thread: one row tile, or gate tile i and up tile i + units.
#pragma once

#include "cuda/dequant.cuh"
#include "cuda/reduce.cuh"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

// y = the sums, or y += them.
struct StoreEpilogue {
  static constexpr int kTiles = 1;  // of a unit
  float* y;
  int64_t stride;
  int outputs;  // of a row of x, after the epilogue
  bool add;

  __device__ __forceinline__ void finish(int row, int output, const float2 (&pairs)[kTiles]) const {
    float* at = y + row * stride + output;
    at[0] = add ? __fadd_rn(at[0], pairs[0].x) : pairs[0].x;
    if (output + 1 < outputs) at[1] = add ? __fadd_rn(at[1], pairs[0].y) : pairs[0].y;
  }
};

// q turned into qkv; k turned and v as it is into their pages. Neighbouring outputs 2j, 2j + 1 are a pair.
struct RopeEpilogue {
  static constexpr int kTiles = 1;
  float* qkv;
  int64_t qkv_stride;
  int outputs;
  const int32_t* positions;
  const int32_t* slots;
  const float* rope;
  int64_t rope_stride;
  uint16_t* pages;  // [block][k|v][kv head][kBlockTokens][head_dim]
  int n_heads, n_kv_heads, head_dim;

  __device__ __forceinline__ void finish(int row, int output, const float2 (&pairs)[kTiles]) const {
    const int head = output / head_dim, d = output % head_dim;
    const bool is_value = head >= n_heads + n_kv_heads;
    float2 pair = pairs[0];
    if (!is_value) {
      const float* turn = rope + positions[row] * rope_stride + d;
      pair = rotate(pair, {turn[0], turn[1]});
    }
    if (head < n_heads) {
      float* at = qkv + row * qkv_stride + output;
      at[0] = pair.x, at[1] = pair.y;
      return;
    }
    const int slot = slots[row], kv_head = head - n_heads - (is_value ? n_kv_heads : 0);
    if (slot < 0) return;  // a padding row
    const int64_t head_page = (int64_t{slot / kBlockTokens} * 2 + (is_value ? 1 : 0)) * n_kv_heads + kv_head;
    uint16_t* at = pages + (head_page * kBlockTokens + slot % kBlockTokens) * head_dim + d;
    *reinterpret_cast<uint32_t*>(at) = ptx::pack_bf16x2(pair.x, pair.y);
  }
};

struct SiluEpilogue {
  static constexpr int kTiles = 2;
  uint16_t* y;
  int64_t stride;
  int outputs;

  __device__ __forceinline__ void finish(int row, int output, const float2 (&pairs)[kTiles]) const {
    const float2 gate = pairs[0], up = pairs[1];
    *reinterpret_cast<uint32_t*>(y + row * stride + output) =
        ptx::pack_bf16x2(silu_mul(gate.x, up.x), silu_mul(gate.y, up.y));
  }
};

inline RopeEpilogue rope_epilogue(TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                                  TensorView rope, KvLayer kv) {
  return {.qkv = qkv.row<float>(0),
          .qkv_stride = qkv.row_stride,
          .outputs = static_cast<int>(shape.qkv_cols()),
          .positions = batch.positions.row<const int32_t>(0),
          .slots = batch.slots.row<const int32_t>(0),
          .rope = rope.row<const float>(0),
          .rope_stride = rope.row_stride,
          .pages = reinterpret_cast<uint16_t*>(kv.data),
          .n_heads = shape.n_heads,
          .n_kv_heads = shape.n_kv_heads,
          .head_dim = shape.head_dim};
}
inline SiluEpilogue silu_epilogue(TensorView y) {
  return {y.row<uint16_t>(0), y.row_stride, static_cast<int>(y.cols)};
}

template <class Epilogue>
__host__ __device__ __forceinline__ int units_of(const Epilogue& epilogue) {
  return (epilogue.outputs + kTileRows - 1) / kTileRows;
}

// Row tile r of those that a warp sums from unit `first` on: all of a unit before the next. Past the last
// unit it is that one again, whose outputs nobody stores.
template <class Epilogue>
__device__ __forceinline__ int row_tile_of(int first, int r, int units) {
  return min(first + r / Epilogue::kTiles, units - 1) + r % Epilogue::kTiles * units;
}

}  // namespace tramontane::cuda
