// Products with 1 to 64 rows of x: one pass over the weights, at the speed of memory.
//
// Grid: (row tiles / kBlockTiles, column blocks); 8 warps, each a segment of K of the same outputs. 8,
// because that many segments cut K = 4096 to 8 tiles a warp, all of whose 4-bit codes are under way at once
// (4 KB a warp, 32 KB a block; to saturate H100 takes about 18 KB an SM), and N = 4096 gives 256 blocks to
// 132 SMs.
#include <algorithm>
#include <type_traits>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/linear_launch.h"

namespace tramontane::cuda {
namespace {

constexpr int kThreads = kSegments * kLanes;

// Registers that a lane needs to hold one tile's codes and scales before it uses them.
template <class F>
constexpr int kTileRegisters = 4 * F::kWords + (F::kDense ? 0 : F::kFolds * F::kScaleEntry / 4);

// With more columns a block takes two row tiles, so that what it reads of x serves twice the weights; not
// where sums, biases and many scales together would not fit the registers.
template <class F>
constexpr int rows_of(int columns) {
  if (columns == 1) return 1;
  if (columns == 8)
    return F::kDense || (!F::kBias && F::kCodes != Codes::codebook4 && kTileRegisters<F> <= 6) ? 2 : 1;
  return kTileRegisters<F> > 16 && columns == 4 ? 1 : 2;
}
// Tiles under way: what 48 registers hold while few columns are summed (4-bit codes: 8 tiles or 4 KB a warp).
template <class F>
constexpr int ahead(int columns) {
  const int registers = (columns == 1   ? 48
                         : columns == 2 ? 24
                                        : 0) /
                        (rows_of<F>(columns) * kTileRegisters<F>);
  return registers < 2 ? 2 : registers / 2 * 2;
}

template <class F, class Epilogue, int kColumns, bool kAligned>
__global__ void __launch_bounds__(kThreads, kColumns == 1 ? 2 : 1)
    gemv_kernel(PackedWeight w, InputRows x, Epilogue epilogue) {
  constexpr int kRows = rows_of<F>(kColumns), kTiles = Epilogue::kTiles;
  // A block takes whole units: several, or one whose tiles it walks one after the other.
  constexpr int kUnits = kRows / kTiles > 1 ? kRows / kTiles : 1, kBlockTiles = kUnits * kTiles;
  constexpr int kPairs = kColumns > 4 ? kColumns / 4 : 1;  // of outputs, that a thread finishes
  __shared__ Partials<kColumns> partials;
  __shared__ float2 gates[kTiles == 2 ? kPairs : 1][kTiles == 2 ? kThreads : 1];  // until their ups come
  const int lane = threadIdx.x % kLanes, segment = threadIdx.x / kLanes;
  const int first_row = blockIdx.y * kColumns * 8, first_unit = blockIdx.x * kUnits;
  const int units = units_of(epilogue);

  const InputSums<F> input_sums(w);
#pragma unroll 1
  for (int tile = 0; tile < kBlockTiles; tile += kRows) {
    int row_tiles[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) row_tiles[r] = row_tile_of<Epilogue>(first_unit, tile + r, units);
    using Inputs = GlobalInputs<F, kColumns, kAligned>;
    Inputs inputs[2] = {Inputs(x, first_row, w.k, input_sums, lane),
                        Inputs(x, first_row, w.k, input_sums, lane)};
    float sums[kRows][kColumns][4] = {};
    sum_segment<F, kRows, kColumns, ahead<F>(kColumns)>(w, row_tiles, segment, lane, inputs, sums);
    const int segments = used_segments(w.k_tiles, w.segment_tiles);  // here: the walk has no register for it
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (tile + r > 0) __syncthreads();
      partials.store(segment, lane, sums[r]);
      __syncthreads();
      // Neighbouring threads finish neighbouring outputs of one row of y.
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const int i = p * kThreads + threadIdx.x, column = i / 8, in_tile = i % 8 * 2;
        const int output = (first_unit + (tile + r) / kTiles) * kTileRows + in_tile;
        if (column >= min(kColumns * 8, x.rows - first_row) || output >= epilogue.outputs) continue;
        const float2 total = partials.pair(segments, column, in_tile);
        if constexpr (kTiles == 1) {
          epilogue.finish(first_row + column, output, {total});
        } else if ((tile + r) % 2 == 0) {
          gates[p][threadIdx.x] = total;
        } else {
          epilogue.finish(first_row + column, output, {gates[p][threadIdx.x], total});
        }
      }
    }
  }
}

// A kernel, how many units its blocks take, and how many tiles of 8 rows of x.
template <class Epilogue>
struct Entry {
  void (*kernel)(PackedWeight, InputRows, Epilogue);
  int units, columns;
};
template <class F, class Epilogue, int kColumns>
constexpr Entry<Epilogue> entry() {
  return {gemv_kernel<F, Epilogue, kColumns, true>, std::max(1, rows_of<F>(kColumns) / Epilogue::kTiles),
          kColumns};
}
// One line per format: up to 8, 16, 32 and 64 rows.
template <class Epilogue>
struct Line {
  Entry<Epilogue> entries[4];
};
template <class Epilogue, int kFormat>
constexpr Line<Epilogue> line() {
  using F = Format<kFormats[kFormat]>;
  // Up to 8 rows RoPE and SiLU are fused_kernel's; rows whose norm does not fit it are few.
  constexpr int kLeast = std::is_same_v<Epilogue, StoreEpilogue> ? 1 : 2;
  constexpr int kMost = F::kNarrow && F::kBias ? 4 : 8;  // with 8 their scales would not fit the registers
  return {{entry<F, Epilogue, kLeast>(), entry<F, Epilogue, 2>(), entry<F, Epilogue, 4>(),
           entry<F, Epilogue, kMost>()}};
}
template <class Epilogue>
struct Table {
  Line<Epilogue> lines[kFormatCount];
};
template <class Epilogue, int... kFormat>
constexpr Table<Epilogue> table(std::integer_sequence<int, kFormat...>) {
  return {{line<Epilogue, kFormat>()...}};
}

template <class Epilogue>
constexpr Table<Epilogue> kTable = table<Epilogue>(std::make_integer_sequence<int, kFormatCount>());
// Dense rows of a width or pitch that is no multiple of 8: correct, not fast. No model of ours has them.
constexpr Entry<StoreEpilogue> kUnalignedEntry = {gemv_kernel<Format<kFormats[0]>, StoreEpilogue, 1, false>,
                                                  1, 1};

template <class Epilogue>
Entry<Epilogue> entry_for(const LinearCall& call) {
  int size = 0;  // a block takes 8 << size rows of x
  while (size < 3 && 8 << size < call.x.rows) ++size;
  return kTable<Epilogue>.lines[call.format].entries[size];
}

}  // namespace

template <class Epilogue>
void launch_gemv(Stream stream, const LinearCall& call, const Epilogue& epilogue) {
  Entry<Epilogue> entry = entry_for<Epilogue>(call);
  if constexpr (std::is_same_v<Epilogue, StoreEpilogue>) {
    if (!call.whole_words) entry = kUnalignedEntry;
  }
  const int columns = 8 * entry.columns;
  const dim3 grid((units_of(epilogue) + entry.units - 1) / entry.units,
                  (call.x.rows + columns - 1) / columns);
  entry.kernel<<<grid, kThreads, 0, stream>>>(call.w, call.x, epilogue);
  check_launch(call.operation);
}

template <class Epilogue>
void load_gemv_kernels(int format) {
  for (const Entry<Epilogue>& entry : kTable<Epilogue>.lines[format].entries)
    load_kernel(entry.kernel, 0, "linear");
  if constexpr (std::is_same_v<Epilogue, StoreEpilogue>) {
    if (format == 0) load_kernel(kUnalignedEntry.kernel, 0, "linear");
  }
}
template void launch_gemv(Stream, const LinearCall&, const StoreEpilogue&);
template void launch_gemv(Stream, const LinearCall&, const RopeEpilogue&);
template void launch_gemv(Stream, const LinearCall&, const SiluEpilogue&);
template void load_gemv_kernels<StoreEpilogue>(int);
template void load_gemv_kernels<RopeEpilogue>(int);
template void load_gemv_kernels<SiluEpilogue>(int);

}  // namespace tramontane::cuda
