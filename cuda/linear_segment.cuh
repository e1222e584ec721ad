// One warp, one segment of K: the walk of the kernels for few rows, whose weights stream from memory into
// registers.
#pragma once

#include "cuda/linear_tile.cuh"

namespace tramontane::cuda {

// x in global memory: BF16 rows.
struct InputRows {
  const uint16_t* data;
  int64_t stride;
  int rows;
};

// B operands of one fold out of one row's inputs of a tile, `tile` being the first of them; `left`: inputs
// there are from there to the row's end. Whole words: the address is 16-byte aligned and `left` a multiple of
// 8 (of 4 for folds of 16).
template <class F, bool kAligned, class Load8, class Load4>
__device__ __forceinline__ void load_fold(const uint16_t* tile, int left, int fold, int t, FoldInputs<F>& x,
                                          Load8 load_8, Load4 load_4) {
  if constexpr (!kAligned) {
#pragma unroll
    for (int s = 0; s < F::kFoldSteps; ++s) {
      const int first = first_input(F::kFold, fold * F::kFoldSteps + s, t);
      uint32_t v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = first + i < left ? tile[first + i] : 0;
      x.b[s][0] = v[0] | v[1] << 16;
      x.b[s][1] = v[2] | v[3] << 16;
    }
  } else if constexpr (F::kNarrow) {
    const int first = first_input(F::kFold, fold, t);
    const uint2 v = load_4(tile + first, first < left);
    x.b[0][0] = v.x, x.b[0][1] = v.y;
  } else {
#pragma unroll
    for (int s = 0; s < F::kFoldSteps; s += 2) {
      const int first = first_input(F::kFold, fold * F::kFoldSteps + s, t);
      const uint4 v = load_8(tile + first, first < left);
      x.b[s][0] = v.x, x.b[s][1] = v.y, x.b[s + 1][0] = v.z, x.b[s + 1][1] = v.w;
    }
  }
}

// Columns straight from global memory. Few of them are fetched a tile ahead into registers (kHeld), more are
// read where they are used. They do take a place in L1: all blocks of an SM read them.
template <class F, int kColumns, bool kAligned>
class GlobalInputs {
 public:
  __device__ __forceinline__ GlobalInputs(const InputRows& x, int first_row, int k, const InputSums<F>& sums,
                                          int lane)
      : x_(x), first_row_(first_row + lane / 4), k_(k), t_(lane % 4), sums_(sums) {
#pragma unroll
    for (int n = 0; n < kHeldColumns; ++n) {
      const int row = first_row_ + n * 8;
      rows_[n] = x.data + row * x.stride;
      ends_[n] = row < x.rows ? k : 0;
    }
  }

  __device__ __forceinline__ void prepare(int k_tile) {
    first_input_ = k_tile * kTileK;
    if constexpr (kHeld) {
#pragma unroll
      for (int n = 0; n < kColumns; ++n) {
#pragma unroll
        for (int fold = 0; fold < F::kFolds; ++fold) read(rows_[n], ends_[n], fold, held_[n][fold]);
      }
    }
  }
  __device__ __forceinline__ void load(int n, int fold, FoldInputs<F>& x) const {
    if constexpr (kHeld) {
      x = held_[n][fold];
    } else {
      const int row = first_row_ + n * 8;
      read(x_.data + row * x_.stride, row < x_.rows ? k_ : 0, fold, x);
    }
  }
  __device__ __forceinline__ float2 sums(int, int, const FoldInputs<F>& x) const {
    return sums_(x);
  }

 private:
  static constexpr bool kHeld = kColumns <= 2;
  static constexpr int kHeldColumns = kHeld ? kColumns : 0;

  __device__ __forceinline__ void read(const uint16_t* row, int end, int fold, FoldInputs<F>& x) const {
    load_fold<F, kAligned>(row + first_input_, end - first_input_, fold, t_, x, ptx::load_16_or_zero,
                           ptx::load_8_or_zero);
  }

  InputRows x_;
  int first_row_, k_, t_, first_input_ = 0;
  const InputSums<F>& sums_;
  const uint16_t* rows_[kHeldColumns + 1];
  int ends_[kHeldColumns + 1];  // k, or 0 where there is no row
  FoldInputs<F> held_[kHeld ? kColumns : 1][kHeld ? F::kFolds : 1];
};

// sums = segment `segment` of kRows row tiles. kAhead tiles of weights are under way at any time: their loads
// are issued that long before they are used. `inputs`: two, prepared in turn.
template <class F, int kRows, int kColumns, int kAhead, class Inputs>
__device__ __forceinline__ void sum_segment(const PackedWeight& w, const int (&row_tiles)[kRows], int segment,
                                            int lane, Inputs (&inputs)[2],
                                            float (&sums)[kRows][kColumns][4]) {
  static_assert(kAhead % 2 == 0, "the two inputs take turns");
  const int first = segment * w.segment_tiles, last = min(first + w.segment_tiles, w.k_tiles);
  const std::byte* code_at[kRows];
  const std::byte* scale_at[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    code_at[r] = code_address<F>(w, row_tiles[r], first, lane);
    scale_at[r] = scale_address<F>(w, row_tiles[r], lane / 4);
  }
  TileCodes<F> codes[kAhead][kRows];
  TileScales<F> scales[kAhead][kRows];
  // Tile `ahead` after the one that code_at points to: the distance is part of the load instruction.
  const auto load = [&](int i, int ahead, int k_tile) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      codes[i][r].load(code_at[r] + ahead * TileCodes<F>::kBytes);
      scales[i][r].load(w, scale_at[r], k_tile);
    }
  };
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    if (first + i < last) load(i, i, first + i);
  }
  inputs[0].prepare(first);
  for (int k_tile = first; k_tile < last; k_tile += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (k_tile + i >= last) break;
      inputs[(i + 1) % 2].prepare(k_tile + i + 1);  // one more than is used: cheaper than to ask
      const auto scales_of = [&](int r, int fold) { return scales[i][r].folds[fold]; };
      add_tile<F, kRows, kColumns>(w, codes[i], scales_of, inputs[i % 2], sums);
      if (k_tile + i + kAhead < last) load(i, i + kAhead, k_tile + i + kAhead);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) code_at[r] += kAhead * TileCodes<F>::kBytes;
  }
}

// Segments' sums of one row tile, side by side in shared memory, to be added in order.
// 20: columns 2t are 40 t floats apart, so that the 32 lanes of a store meet 32 banks.
template <int kColumns>
struct Partials {
  static constexpr int kPitch = 20;
  alignas(8) float values[kSegments][kColumns * 8][kPitch];

  __device__ __forceinline__ void store(int segment, int lane, const float (&sums)[kColumns][4]) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[segment][n * 8 + 2 * t + i % 2][g + i / 2 * 8] = sums[n][i];
    }
  }
  // The totals of rows `row` (even) and row + 1.
  __device__ __forceinline__ float2 pair(int segments, int column, int row) const {
    float2 sum{};
    for (int s = 0; s < segments; ++s) {
      const auto part = *reinterpret_cast<const float2*>(&values[s][column][row]);
      sum = {__fadd_rn(sum.x, part.x), __fadd_rn(sum.y, part.y)};
    }
    return sum;
  }
};

// Segments that hold any tile at all.
__host__ __device__ constexpr int used_segments(int k_tiles, int segment_tiles) {
  return (k_tiles + segment_tiles - 1) / segment_tiles;
}

}  // namespace tramontane::cuda
