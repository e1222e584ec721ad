// The vectorised Linears: one packing, one split over threads, one kernel table per instruction set.
#include <vector>

#include "cpu/linear.h"
#include "cpu/linear_split.h"
#include "cpu/linear_tile.h"
#include "cpu/pack.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// From this many rows on, preparing them is worth a fork and join of its own.
constexpr int64_t kSharedRows = 16;

// Scratch of the engine thread: grows to the largest step it ever sees, then stays.
template <class T>
T* grown(std::vector<T>& scratch, int64_t count) {
  if (scratch.size() < static_cast<size_t>(count)) scratch.resize(static_cast<size_t>(count));
  return scratch.data();
}

LinearPart whole_product(TensorView x, const Matrix& w, TensorView y) {
  CHECK(x.dtype == DType::bf16 && y.dtype == DType::f32,
        "the vector kernels take BF16 rows and give F32 ones");
  LinearPart whole{};
  whole.w = view_packed(w);
  whole.x = x.row<uint16_t>(0);
  whole.x_stride = x.row_stride;
  whole.y = y.row<float>(0);
  whole.y_stride = y.row_stride;
  whole.last_panel = ceil_div(w.n, kPanelChannels);
  whole.last_row = x.rows;
  return whole;
}

void prepare_rows(const LinearKernels& kernels, const LinearPart& whole, ThreadPool& pool) {
  if (whole.last_row < kSharedRows) return kernels.prepare_rows(whole);
  pool.run([&](int thread) {
    const Share rows = share_of(whole.last_row, thread, pool.size());
    LinearPart part = whole;
    part.first_row = rows.first;
    part.last_row = rows.last;
    kernels.prepare_rows(part);
  });
}

void multiply_parts(const LinearKernels& kernels, const LinearPart& whole, ThreadPool& pool) {
  const int parts = row_parts(whole.last_panel, whole.last_row, pool.size());
  pool.run([&](int thread) {
    const Share panels = share_of(whole.last_panel, thread / parts, pool.size() / parts);
    const Share rows = share_of(whole.last_row, thread % parts, parts);
    LinearPart part = whole;
    part.first_panel = panels.first;
    part.last_panel = panels.last;
    part.first_row = rows.first;
    part.last_row = rows.last;
    kernels.multiply_part(part);
  });
}

class PackedLinear : public Linear {
 public:
  explicit PackedLinear(const LinearKernels& kernels) : kernels_(kernels) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override { return pack_panels(matrix, pool); }
  size_t packed_bytes(const HostMatrix& matrix) const override { return tramontane::packed_bytes(matrix); }
  void read_row(const Matrix& w, int64_t n, float* out) const override { read_packed_row(w, n, out); }

  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override {
    static thread_local std::vector<float> sums;
    LinearPart whole = whole_product(x, w, y);
    if (whole.w.has_bias) {
      whole.x_sums = grown(sums, x.rows * (w.k / whole.w.group));
      prepare_rows(kernels_, whole, pool);
    }
    multiply_parts(kernels_, whole, pool);
  }

 private:
  const LinearKernels& kernels_;
};

// Quantised weights in integers, BF16 ones in floating point.
class WordsLinear final : public PackedLinear {
 public:
  WordsLinear(const LinearKernels& words, const LinearKernels& floats)
      : PackedLinear(floats), words_(words) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override {
    CHECK(!matrix.quant || matrix.quant->group <= 128, "the sum of a larger group could exceed 32 bits");
    return PackedLinear::pack(matrix, pool);
  }

  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override {
    if (!w.quant) return PackedLinear::multiply(x, w, y, pool);
    static thread_local std::vector<int16_t> x_words;
    static thread_local std::vector<float> steps, sums;
    LinearPart whole = whole_product(x, w, y);
    const int64_t groups = w.k / whole.w.group;
    whole.x_words = grown(x_words, x.rows * w.k);
    whole.x_steps = grown(steps, x.rows * groups);
    whole.x_sums = grown(sums, x.rows * groups);
    prepare_rows(words_, whole, pool);
    whole.x = reinterpret_cast<const uint16_t*>(whole.x_words);
    whole.x_stride = w.k;
    multiply_parts(words_, whole, pool);
  }

 private:
  const LinearKernels& words_;
};

}  // namespace

const Linear& avx2_linear() {
  static const WordsLinear linear(avx2_word_kernels, avx2_linear_kernels);
  return linear;
}

const Linear& avx512_linear() {
  static const WordsLinear linear(avx512_word_kernels, avx512_linear_kernels);
  return linear;
}

const Linear& plain_avx512vnni_linear() {
  static const WordsLinear linear(vnni_word_kernels, avx512_linear_kernels);
  return linear;
}

const Linear& plain_avx512bf16_linear() {
  static const PackedLinear linear(avx512bf16_linear_kernels);
  return linear;
}

}  // namespace tramontane
