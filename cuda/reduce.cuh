// What the row-wise kernels and the fused products share: sums in a fixed order, the norm's scale, SiLU and
// the rotation, so that an operation has the same bits wherever it is computed. Device code only.
#pragma once

#include <cstdint>

namespace tramontane::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

// The same bits on every lane: a butterfly adds the same two numbers on both sides.
__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2)
    value = __fadd_rn(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

__device__ inline float warp_max(float value) {
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

// A row is summed by 256 lanes, whatever the block that does it: elements 4i .. 4i+3 belong to lane i % 256,
// which adds its squares in ascending order; then 32 lanes are one warp_sum, and the 8 results are added in
// order. A block of fewer warps takes several of these "row warps" per warp, a larger one leaves some warps
// without any.
inline constexpr int kRowWarps = 8;
inline constexpr int kRowLanes = kRowWarps * kWarpLanes;

__device__ inline float add_squares(float sum, float4 v) {
  sum = __fmaf_rn(v.x, v.x, sum);
  sum = __fmaf_rn(v.y, v.y, sum);
  sum = __fmaf_rn(v.z, v.z, sum);
  return __fmaf_rn(v.w, v.w, sum);
}

// Whether rows of n floats that begin at `row` can be read in whole 16-byte words.
__device__ inline bool whole_words(const float* row, int n) {
  return n % 4 == 0 && reinterpret_cast<uintptr_t>(row) % 16 == 0;
}

// Elements i .. i+3 of a row of n; those past its end are 0.
__device__ inline float4 row_elements(const float* row, int n, int i) {
  return {row[i], i + 1 < n ? row[i + 1] : 0.0f, i + 2 < n ? row[i + 2] : 0.0f,
          i + 3 < n ? row[i + 3] : 0.0f};
}

// The squares of row[n] that one row warp (0..7) sums; a whole warp calls it, every lane gets the result.
__device__ inline float row_warp_squares(const float* row, int n, int row_warp) {
  const int first = (row_warp * kWarpLanes + static_cast<int>(threadIdx.x) % kWarpLanes) * 4;
  float sum = 0.0f;
  if (whole_words(row, n)) {
    for (int i = first; i < n; i += kRowLanes * 4)
      sum = add_squares(sum, *reinterpret_cast<const float4*>(row + i));
  } else {
    for (int i = first; i < n; i += kRowLanes * 4) sum = add_squares(sum, row_elements(row, n, i));
  }
  return warp_sum(sum);
}

// 1 / sqrt(mean of n squares + eps), of the sums of the 8 row warps.
__device__ inline float rms_scale(const float* squares, int n, float eps) {
  float sum = squares[0];
#pragma unroll
  for (int i = 1; i < kRowWarps; ++i) sum = __fadd_rn(sum, squares[i]);
  return __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, static_cast<float>(n)), eps)));
}

// The scale of one row, by a whole block of any number of warps; all threads call it, with `squares` [8] in
// shared memory, and all get the same result. It ends after its barrier: `squares` may be used again only
// after another one. For several rows at once call row_warp_squares for each, with one barrier before
// rms_scale.
__device__ inline float row_rms_scale(const float* row, int n, float eps, float* squares) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  for (int i = warp; i < kRowWarps; i += static_cast<int>(blockDim.x) / kWarpLanes) {
    const float sum = row_warp_squares(row, n, i);
    if (lane == 0) squares[i] = sum;
  }
  __syncthreads();
  return rms_scale(squares, n, eps);
}

__device__ inline float normalise(float x, float scale, float weight) {
  return __fmul_rn(__fmul_rn(x, scale), weight);
}

// silu(gate) · up. At large negative gates exp is infinite and the quotient 0, as it should be.
__device__ inline float silu_mul(float gate, float up) {
  return __fmul_rn(__fdiv_rn(gate, __fadd_rn(1.0f, expf(-gate))), up);
}

// (a, b) turned by the angle of `turn` = (cos, sin).
__device__ inline float2 rotate(float2 pair, float2 turn) {
  return {__fsub_rn(__fmul_rn(pair.x, turn.x), __fmul_rn(pair.y, turn.y)),
          __fadd_rn(__fmul_rn(pair.x, turn.y), __fmul_rn(pair.y, turn.x))};
}

}  // namespace tramontane::cuda
