#include "cpu/linear_planes.h"

#include <algorithm>

#include "cpu/aligned_buffer.h"
#include "cpu/linear_planes_pack.h"
#include "cpu/linear_split.h"
#include "cpu/pack_common.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

constexpr int64_t kTileRows = 16;
// Beside tiles, VNNI is the faster one up to so many rows.
constexpr int64_t kVnniRows = 4;

// Buffers of the engine thread that grow to the largest step it ever sees, then stay.
template <class T>
T* grown(Buffer& buffer, int64_t count, const char* label) {
  const size_t needed = static_cast<size_t>(count) * sizeof(T);
  if (buffer.size() < needed) buffer = allocate_aligned(needed, label);
  return reinterpret_cast<T*>(buffer.data());
}

void quantise(PlanesPart& whole, int64_t row_tiles, ThreadPool& pool) {
  static thread_local Buffer planes, steps, sums;
  whole.planes =
      grown<unsigned char>(planes, row_tiles * round_up(whole.w.k, 64) * 2 * whole.width, "rows in integers");
  whole.steps = grown<PlanesSteps>(steps, row_tiles * whole.w.blocks, "steps of rows in integers");
  whole.sums = grown<PlanesSums>(sums, row_tiles * whole.w.units, "sums of rows in integers");
  if (row_tiles == 1) return quantise_rows(whole, 0, 1);
  pool.run([&](int thread) {
    const Share share = share_of(row_tiles, thread, pool.size());
    quantise_rows(whole, share.first, share.last);
  });
}

}  // namespace

Matrix PlanesLinear::pack(const HostMatrix& matrix, ThreadPool& pool) const {
  return planes_take(matrix.quant) ? pack_planes(matrix, pool) : others_.pack(matrix, pool);
}

size_t PlanesLinear::packed_bytes(const HostMatrix& matrix) const {
  return planes_take(matrix.quant) ? planes_bytes(matrix) : others_.packed_bytes(matrix);
}

void PlanesLinear::read_row(const Matrix& w, int64_t n, float* out) const {
  planes_take(w.quant) ? read_planes_row(w, n, out) : others_.read_row(w, n, out);
}

void PlanesLinear::multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const {
  if (!planes_take(w.quant)) return others_.multiply(x, w, y, pool);
  CHECK(x.dtype == DType::bf16 && y.dtype == DType::f32,
        "the integer-plane kernels take BF16 rows and give F32 ones");
  static thread_local Buffer scratch;
  const int64_t row_tiles = ceil_div(x.rows, kTileRows);
  PlanesPart whole{
      .w = view_planes(w),
      .x = x.row<uint16_t>(0),
      .x_stride = x.row_stride,
      .rows = x.rows,
      .planes = nullptr,
      .width = static_cast<int>(std::min(x.rows, kTileRows)),
      .steps = nullptr,
      .sums = nullptr,
      .y = y.row<float>(0),
      .y_stride = y.row_stride,
      .first_panel = 0,
      .last_panel = ceil_div(w.n, kPanelChannels),
      .first_row = 0,
      .last_row = x.rows,
      .scratch = grown<PlanesScratch>(scratch, pool.size(), "scratch of the integer-plane products")};
  quantise(whole, row_tiles, pool);
  const Multiply multiply_part = x.rows <= few_ ? multiply_planes_vnni : many_;
  const int64_t strips = ceil_div(row_tiles, kRowTiles);
  const int parts = row_parts(whole.last_panel, strips, pool.size());
  pool.run([&](int thread) {
    const Share panels = share_of(whole.last_panel, thread / parts, pool.size() / parts);
    const Share rows = share_of(strips, thread % parts, parts);
    PlanesPart part = whole;
    part.first_panel = panels.first;
    part.last_panel = panels.last;
    part.first_row = rows.first * kRowTiles * kTileRows;
    part.last_row = std::min(rows.last * kRowTiles * kTileRows, x.rows);
    part.scratch = whole.scratch + thread;
    if (part.first_panel < part.last_panel && part.first_row < part.last_row) multiply_part(part);
  });
}

const Linear& avx512vnni_linear() {
  static const PlanesLinear linear(plain_avx512vnni_linear(), 0, multiply_planes_vnni);
  return linear;
}

const Linear& avx512bf16_linear() {
  static const PlanesLinear linear(plain_avx512bf16_linear(), 0, multiply_planes_vnni);
  return linear;
}

const Linear& amx_linear() {
  static const PlanesLinear linear(plain_amx_linear(), kVnniRows, multiply_planes_amx);
  return linear;
}

}  // namespace tramontane
