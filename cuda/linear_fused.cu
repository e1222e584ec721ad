// Products with up to 8 rows, fused with the norm before and what follows: for few rows launches cost as much
// as bytes.
//
// Every block computes the norm of all rows itself (16 KB of x a row out of L2, in the order of rowwise.cu,
// so with its bits), keeps them in shared memory as BF16, and walks output tiles with them. So there are no
// more blocks than run at once, each with an equal share of the tiles. 8 warps: a segment of K each, and a
// row's norm is summed by 8.
#include <algorithm>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/linear.h"
#include "cuda/linear_launch.h"
#include "cuda/reduce.cuh"

namespace tramontane::cuda {
namespace {

constexpr int kThreads = kSegments * kLanes;
static_assert(kSegments == kRowWarps, "a warp sums its share of every row's squares");

// For the normalised rows; what a block has besides is static.
constexpr size_t kRowsBytes = 80 * 1024;
constexpr size_t kSquaresBytes = kFusedRows * kRowWarps * sizeof(float);
template <class Epilogue>
constexpr size_t kBlockBytes = kRowsBytes + Epilogue::kTiles * sizeof(Partials<1>) + kSquaresBytes;
static_assert(kBlockBytes<RopeEpilogue> <= kMostSharedBytes && kBlockBytes<SiluEpilogue> <= kMostSharedBytes);

struct NormRows {
  const float* x;  // [rows, k]
  int64_t stride;
  int rows;
  const float* weight;  // [k]
  float eps;
};

// Bytes of a normalised row: whole tiles, and so much more that the rows that one access serves meet
// different banks (two rows of 64 bytes, or four of 32 where folds are narrow).
template <class F>
__host__ __device__ constexpr int row_bytes(int k_tiles) {
  return k_tiles * kTileK * 2 + (F::kNarrow ? 32 : 64);
}

template <class F>
class NormalisedInputs {
 public:
  __device__ __forceinline__ NormalisedInputs(const std::byte* rows, int n_rows, int k_tiles,
                                              const InputSums<F>& sums, int lane)
      : row_(rows + min(lane / 4, n_rows) * row_bytes<F>(k_tiles)), t_(lane % 4), sums_(sums) {}
  __device__ __forceinline__ void prepare(int k_tile) { tile_ = row_ + k_tile * kTileK * 2; }
  __device__ __forceinline__ void load(int, int fold, FoldInputs<F>& x) const {
    load_fold<F, true>(
        reinterpret_cast<const uint16_t*>(tile_), kTileK, fold, t_, x,
        [](const uint16_t* at, bool) { return *reinterpret_cast<const uint4*>(at); },
        [](const uint16_t* at, bool) { return *reinterpret_cast<const uint2*>(at); });
  }
  __device__ __forceinline__ float2 sums(int, int, const FoldInputs<F>& x) const { return sums_(x); }

 private:
  const std::byte* row_;
  const std::byte* tile_ = nullptr;
  int t_;
  const InputSums<F>& sums_;
};

// Rows kept: where there are fewer than 8, one of zeros after them stands for the others, so that no lane has
// to ask whether it has a row.
__host__ __device__ constexpr int kept_rows(int rows) {
  return rows < kFusedRows ? rows + 1 : rows;
}

// rows = x / rms · weight in BF16, zeros up to whole tiles and in the row after the last.
template <class F>
__device__ __forceinline__ void normalise_rows(const NormRows& x, int k, int k_tiles, std::byte* rows) {
  __shared__ float squares[kFusedRows][kRowWarps];
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  for (int r = 0; r < x.rows; ++r) {
    const float sum = row_warp_squares(x.x + r * x.stride, k, warp);
    if (lane == 0) squares[r][warp] = sum;
  }
  __syncthreads();
  for (int r = 0; r < kept_rows(x.rows); ++r) {
    const bool there = r < x.rows;
    const float scale = there ? rms_scale(squares[r], k, x.eps) : 0.0f;
    for (int i = threadIdx.x * 4; i < k_tiles * kTileK; i += kThreads * 4) {
      uint2 words{};
      if (there && i < k) {
        const auto v = *reinterpret_cast<const float4*>(x.x + r * x.stride + i);
        const auto g = *reinterpret_cast<const float4*>(x.weight + i);
        words.x = ptx::pack_bf16x2(normalise(v.x, scale, g.x), normalise(v.y, scale, g.y));
        words.y = ptx::pack_bf16x2(normalise(v.z, scale, g.z), normalise(v.w, scale, g.w));
      }
      *reinterpret_cast<uint2*>(rows + r * row_bytes<F>(k_tiles) + i * 2) = words;
    }
  }
  __syncthreads();
}

template <class F, class Epilogue>
constexpr int kAhead = [] {
  // As in linear_gemv.cu: tiles whose codes and scales 40 registers hold.
  const int registers = Epilogue::kTiles * (4 * F::kWords + (F::kDense ? 0 : F::kFolds * F::kScaleEntry / 4));
  return 40 / registers < 2 ? 2 : 40 / registers / 2 * 2;
}();

// This warp's share of the block's first tiles begins to come into L2 while the norm is computed.
template <class F>
__device__ __forceinline__ void prefetch_segment(const PackedWeight& w, int row_tile, int segment, int lane) {
  const int first = segment * w.segment_tiles, tiles = min(w.segment_tiles, w.k_tiles - first);
  constexpr int kTileBytes = F::kWords * kLanes * kWordBytes, kLine = 128;
  const std::byte* from = w.codes + (int64_t{row_tile} * w.k_tiles + first) * kTileBytes;
  for (int at = lane * kLine; at < tiles * kTileBytes; at += kLanes * kLine) ptx::prefetch_l2(from + at);
}

template <class F, class Epilogue>
__global__ void __launch_bounds__(kThreads, F::kNarrow&& F::kBias ? 1 : 2)
    fused_kernel(PackedWeight w, NormRows x, Epilogue epilogue) {
  extern __shared__ __align__(16) std::byte rows[];
  constexpr int kRows = Epilogue::kTiles;
  __shared__ Partials<1> partials[kRows];
  const int lane = threadIdx.x % kLanes, segment = threadIdx.x / kLanes, units = units_of(epilogue);
#pragma unroll
  for (int r = 0; r < kRows; ++r) prefetch_segment<F>(w, blockIdx.x + r * units, segment, lane);
  normalise_rows<F>(x, w.k, w.k_tiles, rows);

  const int segments = used_segments(w.k_tiles, w.segment_tiles);
  const InputSums<F> input_sums(w);
  for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
    int row_tiles[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) row_tiles[r] = unit + r * units;
    using Inputs = NormalisedInputs<F>;
    Inputs inputs[2] = {Inputs(rows, x.rows, w.k_tiles, input_sums, lane),
                        Inputs(rows, x.rows, w.k_tiles, input_sums, lane)};
    float sums[kRows][1][4] = {};
    sum_segment<F, kRows, 1, kAhead<F, Epilogue>>(w, row_tiles, segment, lane, inputs, sums);
#pragma unroll
    for (int r = 0; r < kRows; ++r) partials[r].store(segment, lane, sums[r]);
    __syncthreads();
    const int row = threadIdx.x / 8, output = threadIdx.x % 8 * 2;  // 64 threads, a pair of outputs each
    if (row < x.rows && unit * kTileRows + output < epilogue.outputs) {
      float2 pairs[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) pairs[r] = partials[r].pair(segments, row, output);
      epilogue.finish(row, unit * kTileRows + output, pairs);
    }
    __syncthreads();
  }
}

template <class Epilogue>
struct Entry {
  void (*kernel)(PackedWeight, NormRows, Epilogue);
  int (*row_bytes)(int k_tiles);
};
template <class Epilogue>
struct Table {
  Entry<Epilogue> entries[kFormatCount];
};
template <class Epilogue, int... kFormat>
constexpr Table<Epilogue> table(std::integer_sequence<int, kFormat...>) {
  return {{{fused_kernel<Format<kFormats[kFormat]>, Epilogue>, row_bytes<Format<kFormats[kFormat]>>}...}};
}

template <class Epilogue>
constexpr Table<Epilogue> kTable = table<Epilogue>(std::make_integer_sequence<int, kFormatCount>());

// As many blocks as run at once, if there are tiles for them, and all with nearly the same number of tiles.
unsigned blocks_for(int at_once, int units) {
  at_once = std::max(1, at_once);
  const int each = (units + at_once - 1) / at_once;
  return static_cast<unsigned>((units + each - 1) / each);
}

template <class Epilogue>
void launch(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& m,
            const Epilogue& epilogue, const char* operation) {
  if (x.rows == 0) return;
  int format = 0;
  const PackedWeight w = packed_weight(m, format);
  const Entry<Epilogue>& entry = kTable<Epilogue>.entries[format];
  const size_t shared_bytes =
      static_cast<size_t>(kept_rows(static_cast<int>(x.rows))) * entry.row_bytes(w.k_tiles);
  load_kernel(entry.kernel, kRowsBytes, operation);
  const NormRows rows{x.row<const float>(0), x.row_stride, static_cast<int>(x.rows), norm.row<const float>(0),
                      eps};
  const unsigned blocks =
      blocks_for(blocks_at_once(entry.kernel, kThreads, shared_bytes, operation), units_of(epilogue));
  entry.kernel<<<blocks, kThreads, shared_bytes, stream>>>(w, rows, epilogue);
  check_launch(operation);
}

}  // namespace

void load_fused_kernels(int format) {
  load_kernel(kTable<RopeEpilogue>.entries[format].kernel, kRowsBytes, "norm_qkv_rope");
  load_kernel(kTable<SiluEpilogue>.entries[format].kernel, kRowsBytes, "norm_gate_up_silu");
}

bool can_fuse_norm(TensorView x, TensorView norm, const Matrix& w) {
  const int64_t k_tiles = (w.k + kTileK - 1) / kTileK;
  return x.rows <= kFusedRows && w.k % 4 == 0 && words_of(x, 4) && words_of(norm, 4) &&
         kept_rows(static_cast<int>(x.rows)) * (k_tiles * kTileK * 2 + 64) <= int64_t{kRowsBytes};
}

bool can_fuse_gate_up(TensorView x, TensorView norm, const Matrix& w, TensorView y) {
  return can_fuse_norm(x, norm, w) && can_pair_gates(w, y);
}

void launch_norm_qkv_rope(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                          TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                          TensorView rope, KvLayer kv) {
  launch(stream, x, norm, eps, w, rope_epilogue(qkv, batch, shape, rope, kv), "norm_qkv_rope");
}

void launch_norm_gate_up_silu(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                              TensorView y) {
  launch(stream, x, norm, eps, w, silu_epilogue(y), "norm_gate_up_silu");
}

}  // namespace tramontane::cuda
