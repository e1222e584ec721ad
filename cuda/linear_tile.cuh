// The sums that every product makes, for any number of rows; that all kernels call these two functions in the
// same order is what keeps decision 5.
//
//   tile:     per fold (16, 32 or 64 inputs): sum' = 16-input steps by mma from zero, in order;
//             sum = fma(scale, sum', sum), then sum = fma(bias, sum of x, sum). Dense: mma adds onto sum
//             itself.
//   segment:  sum from zero over its tiles, in order.
//   output:   segments added in order, from zero.
//
// The sums of x over a fold are made by mma too, with ones for weights: every lane has the two of its own
// columns.
#pragma once

#include "cuda/dequant.cuh"

namespace tramontane::cuda {

// B operands of one column tile (8 rows of x) for the steps of one fold.
template <class F>
struct FoldInputs {
  uint32_t b[F::kFoldSteps][2];
};

// Sums over a fold of the two columns (2t, 2t + 1) of a lane.
template <class F>
class InputSums {
 public:
  // Ones, plus a lane's multiples of 0: what ptxas knows to be the same everywhere it would set anew, four
  // registers before every mma.
  __device__ __forceinline__ explicit InputSums(const PackedWeight& w) {
    const uint32_t zero = static_cast<uint32_t>(w.group_shift) >> 8;
#pragma unroll
    for (int j = 0; j < 4; ++j) ones_[j] = w.ones + (threadIdx.x + j) * zero;
  }
  // Ones as they are, for a loop that has no registers to keep them.
  __device__ __forceinline__ InputSums() : ones_{0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u} {}
  __device__ __forceinline__ float2 operator()(const FoldInputs<F>& x) const {
    float sum[4];
    ptx::mma_bf16_from_zero(sum, ones_, x.b[0][0], x.b[0][1]);
#pragma unroll
    for (int s = 1; s < F::kFoldSteps; ++s) ptx::mma_bf16(sum, ones_, x.b[s][0], x.b[s][1]);
    return {sum[0], sum[1]};
  }

 private:
  uint32_t ones_[4];
};

// sum += one fold of one row tile times one column tile. sum as mma's c: rows g, g, g+8, g+8, columns 2t,
// 2t+1, ...
template <class F>
__device__ __forceinline__ void add_fold(const uint32_t (&a)[F::kFoldSteps][4], const FoldInputs<F>& x,
                                         const RowScales& scales, float2 input_sums, float (&sum)[4]) {
  if constexpr (F::kDense) {
#pragma unroll
    for (int s = 0; s < F::kFoldSteps; ++s) ptx::mma_bf16(sum, a[s], x.b[s][0], x.b[s][1]);
  } else {
    float fold[4];
    ptx::mma_bf16_from_zero(fold, a[0], x.b[0][0], x.b[0][1]);
#pragma unroll
    for (int s = 1; s < F::kFoldSteps; ++s) ptx::mma_bf16(fold, a[s], x.b[s][0], x.b[s][1]);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[i] = __fmaf_rn(scales.scale[i / 2], fold[i], sum[i]);
      if constexpr (F::kBias)
        sum[i] = __fmaf_rn(scales.bias[i / 2], i % 2 == 0 ? input_sums.x : input_sums.y, sum[i]);
    }
  }
}

// sums[r][n] += row tile r (kRows of them) times column tile n, one tile of K. `inputs` gives the columns:
//   void load(int column_tile, int fold, FoldInputs<F>&)          B operands
//   float2 sums(int column_tile, int fold, const FoldInputs<F>&)  InputSums of them; only asked for biases
// and `scales(row tile, fold)` is a ScaleEntry. Folds are unrolled but where registers are too few.
template <class F, int kRows, int kColumns, int kUnrolledFolds = F::kFolds, class Scales, class Inputs>
__device__ __forceinline__ void add_tile(const PackedWeight& w, const TileCodes<F> (&codes)[kRows],
                                         const Scales& scales, Inputs& inputs,
                                         float (&sums)[kRows][kColumns][4]) {
#pragma unroll kUnrolledFolds
  for (int fold = 0; fold < F::kFolds; ++fold) {
    uint32_t a[kRows][F::kFoldSteps][4];
    RowScales row_scales[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int s = 0; s < F::kFoldSteps; ++s) expand<F>(codes[r], fold * F::kFoldSteps + s, w, a[r][s]);
      if constexpr (!F::kDense) row_scales[r] = scales(r, fold).floats(w);
    }
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
      FoldInputs<F> x;
      inputs.load(n, fold, x);
      float2 input_sums{};
      if constexpr (F::kBias) input_sums = inputs.sums(n, fold, x);
#pragma unroll
      for (int r = 0; r < kRows; ++r) add_fold<F>(a[r], x, row_scales[r], input_sums, sums[r][n]);
    }
  }
}

}  // namespace tramontane::cuda
