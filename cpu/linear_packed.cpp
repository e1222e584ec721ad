// The three vectorised Linears: one packing, one split over threads, one kernel table per instruction set.
#include <vector>

#include "cpu/linear.h"
#include "cpu/linear_split.h"
#include "cpu/linear_tile.h"
#include "cpu/pack.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// From this many rows on, the group sums are worth a fork and join of their own.
constexpr int64_t kSharedSumRows = 16;

class PackedLinear final : public Linear {
 public:
  explicit PackedLinear(const LinearKernels& kernels) : kernels_(kernels) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override { return pack_panels(matrix, pool); }
  size_t packed_bytes(const HostMatrix& matrix) const override { return tramontane::packed_bytes(matrix); }

  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override {
    CHECK(x.dtype == DType::bf16 && y.dtype == DType::f32,
          "the vector kernels take BF16 rows and give F32 ones");
    LinearPart whole{.w = view_packed(w),
                     .x = x.row<uint16_t>(0),
                     .x_stride = x.row_stride,
                     .y = y.row<float>(0),
                     .y_stride = y.row_stride,
                     .x_sums = nullptr,
                     .first_panel = 0,
                     .last_panel = ceil_div(w.n, kPanelChannels),
                     .first_row = 0,
                     .last_row = x.rows};
    if (whole.w.has_bias) sum_groups(whole, pool);
    const int parts = row_parts(whole.last_panel, x.rows, pool.size());
    pool.run([&](int thread) {
      const Share panels = share_of(whole.last_panel, thread / parts, pool.size() / parts);
      const Share rows = share_of(x.rows, thread % parts, parts);
      LinearPart part = whole;
      part.first_panel = panels.first;
      part.last_panel = panels.last;
      part.first_row = rows.first;
      part.last_row = rows.last;
      kernels_.multiply_part(part);
    });
  }

  void read_row(const Matrix& w, int64_t n, float* out) const override { read_packed_row(w, n, out); }

 private:
  // Scratch of the engine thread: grows to the largest step it ever sees, then stays.
  void sum_groups(LinearPart& whole, ThreadPool& pool) const {
    static thread_local std::vector<float> sums;
    const size_t needed = static_cast<size_t>(whole.last_row * (whole.w.k / whole.w.group));
    if (sums.size() < needed) sums.resize(needed);
    whole.x_sums = sums.data();
    if (whole.last_row < kSharedSumRows) return kernels_.sum_groups(whole);
    pool.run([&](int thread) {
      const Share rows = share_of(whole.last_row, thread, pool.size());
      LinearPart part = whole;
      part.first_row = rows.first;
      part.last_row = rows.last;
      kernels_.sum_groups(part);
    });
  }

  const LinearKernels& kernels_;
};

}  // namespace

const Linear& avx2_linear() {
  static const PackedLinear linear(avx2_linear_kernels);
  return linear;
}

const Linear& avx512_linear() {
  static const PackedLinear linear(avx512_linear_kernels);
  return linear;
}

const Linear& plain_avx512bf16_linear() {
  static const PackedLinear linear(avx512bf16_linear_kernels);
  return linear;
}

}  // namespace tramontane
