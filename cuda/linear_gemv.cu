// Products with 1 to 64 rows of x: one pass over the weights, at the speed of memory.
//
// Grid: (row tiles / kRows, column blocks); 8 warps, each a segment of K of the same outputs. 8, because that
// many segments cut K = 4096 to 8 tiles a warp, all of whose 4-bit codes are under way at once (4 KB a warp,
// 32 KB a block; to saturate H100 takes about 18 KB an SM), and N = 4096 gives 256 blocks to 132 SMs.
#include <utility>

#include "cuda/check.cuh"
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

template <class F, int kColumns, bool kAligned>
__global__ void __launch_bounds__(kThreads, kColumns == 1 ? 2 : 1)
    gemv_kernel(PackedWeight w, InputRows x, OutputRows y) {
  constexpr int kRows = rows_of<F>(kColumns);
  __shared__ Partials<kColumns> partials;
  const int lane = threadIdx.x % kLanes, segment = threadIdx.x / kLanes;
  const int first_row = blockIdx.y * kColumns * 8;
  int row_tiles[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r)  // past the last tile: that one again, not stored
    row_tiles[r] = min(static_cast<int>(blockIdx.x) * kRows + r, w.row_tiles - 1);

  using Inputs = GlobalInputs<F, kColumns, kAligned>;
  const InputSums<F> input_sums(w);
  Inputs inputs[2] = {Inputs(x, first_row, w.k, input_sums, lane),
                      Inputs(x, first_row, w.k, input_sums, lane)};
  float sums[kRows][kColumns][4] = {};
  sum_segment<F, kRows, kColumns, ahead<F>(kColumns)>(w, row_tiles, segment, lane, inputs, sums);

  const int segments = used_segments(w.k_tiles, w.segment_tiles);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r > 0) __syncthreads();
    partials.store(segment, lane, sums[r]);
    __syncthreads();
    // Neighbouring threads store neighbouring outputs of one row of y.
    for (int i = threadIdx.x; i < kColumns * 8 * kTileRows; i += kThreads) {
      const int column = first_row + i / kTileRows;
      const int row = (static_cast<int>(blockIdx.x) * kRows + r) * kTileRows + i % kTileRows;
      if (column >= x.rows || row >= w.n) continue;
      float* at = y.data + column * y.stride + row;
      const float total = partials.total(segments, i / kTileRows, i % kTileRows);
      *at = y.add ? __fadd_rn(*at, total) : total;
    }
  }
}

using Kernel = void (*)(PackedWeight, InputRows, OutputRows);

// A kernel, how many row tiles its blocks take, and how many tiles of 8 rows of x.
struct Entry {
  Kernel kernel;
  int rows, columns;
};
template <class F, int kColumns>
constexpr Entry entry() {
  return {gemv_kernel<F, kColumns, true>, rows_of<F>(kColumns), kColumns};
}
// One line per format: up to 8, 16, 32 and 64 rows.
struct Line {
  Entry entries[4];
};
template <int kFormat>
constexpr Line line() {
  using F = Format<kFormats[kFormat]>;
  constexpr int kMost = F::kNarrow && F::kBias ? 4 : 8;  // with 8 their scales would not fit the registers
  return {{entry<F, 1>(), entry<F, 2>(), entry<F, 4>(), entry<F, kMost>()}};
}
struct Table {
  Line lines[kFormatCount];
};
template <int... kFormat>
constexpr Table table(std::integer_sequence<int, kFormat...>) {
  return {{line<kFormat>()...}};
}

}  // namespace

void launch_gemv(Stream stream, const LinearCall& call, OutputRows y) {
  static constexpr Table kTable = table(std::make_integer_sequence<int, kFormatCount>());
  int size = 0;  // a block takes 8 << size rows of x
  while (size < 3 && 8 << size < call.x.rows) ++size;
  Entry entry = kTable.lines[call.format].entries[size];
  if (!call.whole_words) {
    // Dense rows of a width or pitch that is no multiple of 8: correct, not fast. No model of ours has them.
    entry = {gemv_kernel<Format<kFormats[0]>, 1, false>, 1, 1};
  }
  const int columns = 8 * entry.columns;
  const dim3 grid((call.w.row_tiles + entry.rows - 1) / entry.rows, (call.x.rows + columns - 1) / columns);
  entry.kernel<<<grid, kThreads, 0, stream>>>(call.w, call.x, y);
  check_launch("linear");
}

}  // namespace tramontane::cuda
