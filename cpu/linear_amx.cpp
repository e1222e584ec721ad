#include "cpu/linear_amx.h"

#include <algorithm>

#include "cpu/aligned_buffer.h"
#include "cpu/linear_amx_pack.h"
#include "cpu/linear_split.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// From this many rows on, packing them is worth a fork and join of its own.
constexpr int64_t kSharedPackRows = 16;

// Kept for the engine thread, which hands it out: a thread_local of the workers would be every thread's, also
// those of HTTP connections.
AmxScratch* scratch_of(int threads) {
  static thread_local Buffer scratch;
  const size_t needed = static_cast<size_t>(threads) * sizeof(AmxScratch);
  if (scratch.size() < needed) scratch = allocate_aligned(needed, "scratch of the AMX products");
  return reinterpret_cast<AmxScratch*>(scratch.data());
}

}  // namespace

Matrix AmxLinear::pack(const HostMatrix& matrix, ThreadPool& pool) const {
  return pack_amx(matrix, pool);
}

size_t AmxLinear::packed_bytes(const HostMatrix& matrix) const {
  return amx_bytes(matrix);
}

void AmxLinear::read_row(const Matrix& w, int64_t n, float* out) const {
  read_amx_row(w, n, out);
}

void AmxLinear::multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const {
  CHECK(x.dtype == DType::bf16 && y.dtype == DType::f32, "the AMX kernels take BF16 rows and give F32 ones");
  const int64_t column_tiles = ceil_div(x.rows, kTileColumns), strip = column_tiles <= 4 ? column_tiles : 2;
  AmxPart whole{.w = view_amx(w),
                .x = x.row<uint16_t>(0),
                .x_stride = x.row_stride,
                .rows = x.rows,
                .packed_x = nullptr,
                .packed_columns = ceil_div(column_tiles, strip) * strip,
                .strip = strip,
                .width = static_cast<int>(std::min<int64_t>(x.rows, kTileColumns)),
                .y = y.row<float>(0),
                .y_stride = y.row_stride,
                .first_panel = 0,
                .last_panel = ceil_div(w.n, kPanelChannels),
                .first_column_tile = 0,
                .last_column_tile = column_tiles,
                .scratch = nullptr};
  pack_rows(whole, pool);
  AmxScratch* scratch = scratch_of(pool.size());
  const int parts = row_parts(whole.last_panel, whole.last_column_tile, pool.size());
  pool.run([&](int thread) {
    const Share panels = share_of(whole.last_panel, thread / parts, pool.size() / parts);
    const Share columns = share_of(whole.last_column_tile, thread % parts, parts);
    AmxPart part = whole;
    part.first_panel = panels.first;
    part.last_panel = panels.last;
    part.first_column_tile = columns.first;
    part.last_column_tile = columns.last;
    part.scratch = scratch + thread;
    kernels_.multiply_part(part);
  });
}

// Into scratch of the engine thread that grows to the largest step it ever sees, then stays.
void AmxLinear::pack_rows(AmxPart& whole, ThreadPool& pool) const {
  static thread_local Buffer scratch;
  const int64_t tiles = whole.packed_columns * whole.w.tiles;
  const size_t needed = static_cast<size_t>(tiles * kTileK * whole.width) * sizeof(uint16_t);
  if (scratch.size() < needed) scratch = allocate_aligned(needed, "packed rows");
  whole.packed_x = reinterpret_cast<uint16_t*>(scratch.data());
  if (whole.rows < kSharedPackRows) return kernels_.pack_rows(whole, 0, tiles);
  pool.run([&](int thread) {
    const Share share = share_of(tiles, thread, pool.size());
    kernels_.pack_rows(whole, share.first, share.last);
  });
}

const Linear& plain_amx_linear() {
  static const AmxLinear linear(amx_linear_kernels);
  return linear;
}

}  // namespace tramontane
