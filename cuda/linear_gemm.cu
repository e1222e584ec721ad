// Products with more than 64 rows of x: prefill and mixed steps.
//
// A block makes 128 outputs of 64 rows (SiLU: 64 gates and their ups), and walks all of K. 4 warps, each 32
// outputs x 64 rows: every operand that ldmatrix or dequantisation brings into registers serves 8 or 2 mma.
// Two blocks fit an SM by registers (at most 255 a thread) and, but for large stages on sm_86 and sm_89
// (kStages), by shared memory, so that one computes while the other waits. Stages of one tile of K (8 KB of
// x, 4 to 16 KB of codes) come by cp.async, 3 or 4 deep. Codes and scales are copied by the lanes or warps
// that use them; x by all. Grid: (row blocks of x, output blocks): blocks that run together share weights,
// which then come from L2.
//
// Why not cuBLAS for BF16: it sums K in an order of its own, that changes with the number of rows; a prompt's
// bits would depend on how it was cut into steps (decision 5), and decode and prefill would differ.
#include <utility>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/linear_launch.h"

namespace tramontane::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kLanes;
constexpr int kRows = 2, kColumns = 8;  // row tiles of a warp, column tiles of 8 rows of x
constexpr int kBlockTiles = kWarps * kRows, kBlockRows = kColumns * 8;
template <class Epilogue>
constexpr int kWarpUnits = kRows / Epilogue::kTiles;  // a warp has a gate tile and its up tile
constexpr int kInputBytes = kBlockRows * kTileK * 2;

template <class F>
struct Stage {
  static constexpr int kFoldBytes = F::kDense ? 0 : 8 * F::kScaleEntry;  // scales of a row tile and fold
  static constexpr int kScaleBytes = F::kDense ? 16 : F::kFolds * kFoldBytes;
  alignas(16) std::byte inputs[kInputBytes];
  alignas(16) uint4 codes[kBlockTiles][F::kWords][kLanes];
  alignas(16) std::byte scales[kBlockTiles][kScaleBytes];
};

// Sums of x over folds, of the stage in use and of the next one.
template <class F>
struct StageSums {
  float2 values[F::kBias ? 2 : 1][F::kBias ? F::kFolds : 1][F::kBias ? kBlockRows / 2 : 1];
};

// 3 stages keep 2 tiles under way (1 with biases). An SM has 164 KB on sm_80, 228 on sm_90, and 100 on sm_86
// and sm_89, of which a block takes 1 KB besides its own. 3 stages of 4-bit codes fit two blocks into all of
// them, 4 would not into 100 KB; a tile is some 600 instructions of each scheduler, which is twice the
// latency of L2. Two blocks of 3 stages of dense tiles, which are twice as large, fit only sm_80 and sm_90,
// and so do two of 4 stages of 8-bit codes. Folds of 16 have 4 stages too: to count 3 of them takes a
// register that they do not have.
template <class F>
constexpr int kStages = F::kDense || (F::kWords == 1 && !F::kNarrow) ? 3 : 4;

template <class F>
struct Shared {
  Stage<F> stages[kStages<F>];
  StageSums<F> sums;
};
template <class F>
constexpr bool kTwoFit = 2 * (sizeof(Shared<F>) + 1024) <= 100 * 1024;
template <class F>
constexpr bool kTwoShould = F::kWords == 1 && !F::kNarrow;

// 16-byte chunk c of a row of x is at c ^ swizzle(row): then the 8 lanes (16 for folds of 16) that one access
// of shared memory serves meet all banks.
__device__ __forceinline__ int swizzle(int row) {
  return (row & 1) << 2 | (row & 2);
}

template <class F>
class SharedInputs {
 public:
  __device__ __forceinline__ SharedInputs(const std::byte* inputs, const StageSums<F>& sums, int parity,
                                          int lane)
      : row_(inputs + lane / 4 * kTileK * 2),
        sums_(sums),
        parity_(parity),
        t_(lane % 4),
        swizzle_(swizzle(lane / 4)) {}

  __device__ __forceinline__ void load(int n, int fold, FoldInputs<F>& x) const {
    const std::byte* row = row_ + n * 8 * kTileK * 2;
    if constexpr (F::kNarrow) {
      const auto v =
          *reinterpret_cast<const uint2*>(row + ((2 * fold + t_ / 2) ^ swizzle_) * 16 + t_ % 2 * 8);
      x.b[0][0] = v.x, x.b[0][1] = v.y;
    } else {
#pragma unroll
      for (int s = 0; s < F::kFoldSteps; s += 2) {
        const int half = (fold * F::kFoldSteps + s) / 2;
        const auto v = *reinterpret_cast<const uint4*>(row + ((4 * half + t_) ^ swizzle_) * 16);
        x.b[s][0] = v.x, x.b[s][1] = v.y, x.b[s + 1][0] = v.z, x.b[s + 1][1] = v.w;
      }
    }
  }
  __device__ __forceinline__ float2 sums(int n, int fold, const FoldInputs<F>&) const {
    return sums_.values[parity_][fold][n * 4 + t_];
  }

 private:
  const std::byte* row_;
  const StageSums<F>& sums_;
  int parity_, t_, swizzle_;
};

// `units` in all, of which this warp's begin with `first_unit`.
template <class F, class Epilogue>
__device__ __forceinline__ void copy_stage(const PackedWeight& w, const InputRows& x, int first_row,
                                           int first_unit, int units, int k_tile, Stage<F>& stage) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
#pragma unroll
  for (int i = 0; i < kInputBytes / 16 / kThreads; ++i) {
    const int chunk = i * kThreads + threadIdx.x, row = chunk / 8, c = chunk % 8;
    const bool there = first_row + row < x.rows && k_tile * kTileK + c * 8 < w.k;
    const uint16_t* from = x.data + (first_row + row) * x.stride + k_tile * kTileK + c * 8;
    ptx::cp_async_16_or_zero(stage.inputs + row * kTileK * 2 + (c ^ swizzle(row)) * 16, there ? from : x.data,
                             there);
  }
#pragma unroll 1  // one address at a time: the sums leave few registers
  for (int r = 0; r < kRows; ++r) {
    const int in_block = warp * kRows + r, row_tile = row_tile_of<Epilogue>(first_unit, r, units);
    const std::byte* from = code_address<F>(w, row_tile, k_tile, lane);
#pragma unroll
    for (int v = 0; v < F::kWords; ++v)
      ptx::cp_async_16(&stage.codes[in_block][v][lane], from + v * kLanes * kWordBytes);
    if constexpr (!F::kDense) {
      constexpr int kPieces = Stage<F>::kFoldBytes / 16;
      if (lane < F::kFolds * kPieces) {
        const int fold = lane / kPieces, piece = lane % kPieces;
        ptx::cp_async_16(stage.scales[in_block] + lane * 16,
                         scale_address<F>(w, row_tile, 0) + scale_offset<F>(w, k_tile, fold) + piece * 16);
      }
    }
  }
}

// Sums of a stage's x, two column tiles a warp.
template <class F>
__device__ __forceinline__ void make_sums(const Stage<F>& stage, int parity, StageSums<F>& sums) {
  if constexpr (F::kBias) {
    const InputSums<F> sum_inputs;
    const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
    const SharedInputs<F> inputs(stage.inputs, sums, parity, lane);
#pragma unroll 1  // side by side the two take registers that are not there
    for (int i = 0; i < kColumns / kWarps; ++i) {
      const int n = warp * (kColumns / kWarps) + i;
#pragma unroll
      for (int fold = 0; fold < F::kFolds; ++fold) {
        FoldInputs<F> x;
        inputs.load(n, fold, x);
        const float2 sum = sum_inputs(x);
        if (lane < 4) sums.values[parity][fold][n * 4 + lane] = sum;
      }
    }
  }
}

template <class F>
__device__ __forceinline__ void add_stage(const PackedWeight& w, const Stage<F>& stage,
                                          const StageSums<F>& input_sums, int parity,
                                          float (&sums)[kRows][kColumns][4]) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  TileCodes<F> codes[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int v = 0; v < F::kWords; ++v) codes[r].words[v] = stage.codes[warp * kRows + r][v][lane];
  }
  const auto scales = [&](int r, int fold) {
    ScaleEntry<F> entry;
    entry.load(stage.scales[warp * kRows + r] + fold * Stage<F>::kFoldBytes + lane / 4 * F::kScaleEntry);
    return entry;
  };
  SharedInputs<F> inputs(stage.inputs, input_sums, parity, lane);
  constexpr bool kCrowded = F::kFold == 32;  // spills when unrolled
  add_tile<F, kRows, kColumns, kCrowded ? 1 : F::kFolds>(w, codes, scales, inputs, sums);
}

__device__ __forceinline__ void add_segment(float (&sums)[kRows][kColumns][4],
                                            float (&totals)[kRows][kColumns][4]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        totals[r][n][i] = __fadd_rn(totals[r][n][i], sums[r][n][i]);
        sums[r][n][i] = 0.0f;
      }
    }
  }
}

// mma leaves a lane outputs g of columns 2t and 2t + 1. Lanes of g and g ^ 1 trade: the even one gets outputs
// g and g + 1 of column 2t, the odd one those of column 2t + 1. 4 lanes finish 8 neighbouring outputs.
__device__ __forceinline__ float2 trade(float first_column, float second_column, bool odd) {
  const float kept = odd ? second_column : first_column, given = odd ? first_column : second_column;
  const float taken = __shfl_xor_sync(kAllLanes, given, 4);
  return odd ? float2{taken, kept} : float2{kept, taken};
}

template <class Epilogue>
__device__ __forceinline__ void finish_totals(int rows, int first_row, int first_unit,
                                              const float (&totals)[kRows][kColumns][4],
                                              const Epilogue& epilogue) {
  constexpr int kTiles = Epilogue::kTiles;
  const int g = threadIdx.x % kLanes / 4, t = threadIdx.x % 4;
  const bool odd = g % 2 != 0;
#pragma unroll
  for (int unit = 0; unit < kWarpUnits<Epilogue>; ++unit) {
#pragma unroll
    for (int n = 0; n < kColumns; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float2 pairs[kTiles];
#pragma unroll
        for (int i = 0; i < kTiles; ++i) {
          const float(&total)[4] = totals[unit * kTiles + i][n];
          pairs[i] = trade(total[2 * half], total[2 * half + 1], odd);
        }
        const int row = first_row + n * 8 + 2 * t + odd;
        const int output = (first_unit + unit) * kTileRows + half * 8 + g - odd;
        if (row < rows && output < epilogue.outputs) epilogue.finish(row, output, pairs);
      }
    }
  }
}

template <class F, class Epilogue>
__global__ void __launch_bounds__(kThreads, 2) gemm_kernel(PackedWeight w, InputRows x, Epilogue epilogue) {
  extern __shared__ __align__(16) std::byte memory[];
  auto& shared = *reinterpret_cast<Shared<F>*>(memory);
  constexpr int kDepth = kStages<F>;
  const int first_row = blockIdx.x * kBlockRows, units = units_of(epilogue);
  const int first_unit = (blockIdx.y * kWarps + threadIdx.x / kLanes) * kWarpUnits<Epilogue>;
  const auto copy = [&](int k_tile) {
    if (k_tile < w.k_tiles)
      copy_stage<F, Epilogue>(w, x, first_row, first_unit, units, k_tile, shared.stages[k_tile % kDepth]);
    ptx::cp_async_commit();  // an empty group past the end: one group a tile, always
  };

  for (int i = 0; i < kDepth - 1; ++i) copy(i);
  if constexpr (F::kBias) {
    ptx::cp_async_wait<kDepth - 2>();
    __syncthreads();
    make_sums<F>(shared.stages[0], 0, shared.sums);
  }
  float sums[kRows][kColumns][4] = {}, totals[kRows][kColumns][4] = {};
  int left = w.segment_tiles;
  for (int k_tile = 0; k_tile < w.k_tiles; ++k_tile) {
    ptx::cp_async_wait<F::kBias ? kDepth - 3 : kDepth - 2>();  // with biases the next stage is looked at too
    __syncthreads();  // copies of all threads have arrived, and all have done with the last stage
    copy(k_tile + kDepth - 1);
    if (k_tile + 1 < w.k_tiles)
      make_sums<F>(shared.stages[(k_tile + 1) % kDepth], (k_tile + 1) % 2, shared.sums);
    add_stage<F>(w, shared.stages[k_tile % kDepth], shared.sums, k_tile % 2, sums);
    if (--left == 0 || k_tile + 1 == w.k_tiles) {
      add_segment(sums, totals);
      left = w.segment_tiles;
    }
  }
  finish_totals(x.rows, first_row, first_unit, totals, epilogue);
}

template <class Epilogue>
struct Entry {
  void (*kernel)(PackedWeight, InputRows, Epilogue);
  size_t shared_bytes;
};
template <class Epilogue>
struct Table {
  Entry<Epilogue> entries[kFormatCount];
};
template <class Epilogue, int... kFormat>
constexpr Table<Epilogue> table(std::integer_sequence<int, kFormat...>) {
  static_assert(((sizeof(Shared<Format<kFormats[kFormat]>>) <= kMostSharedBytes) && ...));
  static_assert(((kTwoFit<Format<kFormats[kFormat]>> == kTwoShould<Format<kFormats[kFormat]>>)&&...));
  return {{{gemm_kernel<Format<kFormats[kFormat]>, Epilogue>, sizeof(Shared<Format<kFormats[kFormat]>>)}...}};
}

template <class Epilogue>
constexpr Table<Epilogue> kTable = table<Epilogue>(std::make_integer_sequence<int, kFormatCount>());

}  // namespace

template <class Epilogue>
void launch_gemm(Stream stream, const LinearCall& call, const Epilogue& epilogue) {
  const Entry<Epilogue>& entry = kTable<Epilogue>.entries[call.format];
  load_kernel(entry.kernel, entry.shared_bytes, call.operation);
  constexpr int kBlockUnits = kWarps * kWarpUnits<Epilogue>;
  const dim3 grid((call.x.rows + kBlockRows - 1) / kBlockRows,
                  (units_of(epilogue) + kBlockUnits - 1) / kBlockUnits);
  entry.kernel<<<grid, kThreads, entry.shared_bytes, stream>>>(call.w, call.x, epilogue);
  check_launch(call.operation);
}

template <class Epilogue>
void load_gemm_kernels(int format) {
  const Entry<Epilogue>& entry = kTable<Epilogue>.entries[format];
  load_kernel(entry.kernel, entry.shared_bytes, "linear");
}
template void launch_gemm(Stream, const LinearCall&, const StoreEpilogue&);
template void launch_gemm(Stream, const LinearCall&, const RopeEpilogue&);
template void launch_gemm(Stream, const LinearCall&, const SiluEpilogue&);
template void load_gemm_kernels<StoreEpilogue>(int);
template void load_gemm_kernels<RopeEpilogue>(int);
template void load_gemm_kernels<SiluEpilogue>(int);

}  // namespace tramontane::cuda
