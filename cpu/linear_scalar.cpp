// The scalar Linear: the specification the other kernels are compared with. Matrices stay in canonical order.
#include <cstring>

#include "cpu/aligned_buffer.h"
#include "cpu/linear.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

HostMatrix view_of(const Matrix& w) {
  HostMatrix view;
  view.n = w.n;
  view.k = w.k;
  view.dense_dtype = w.dense_dtype;
  view.quant = w.quant;
  view.scale_dtype = w.scale_dtype;
  view.codes = {w.codes.data(), w.codes.size()};
  view.scales = {w.scales.data(), w.scales.size()};
  view.biases = {w.biases.data(), w.biases.size()};
  return view;
}

Buffer copy_of(std::span<const std::byte> bytes, std::string_view label) {
  Buffer copy = allocate_aligned(bytes.size(), label);
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

// A row of FP32 weights that each thread keeps; it grows to the largest K and then stays.
float* weight_row(int64_t k) {
  thread_local std::vector<float> row;
  if (row.size() < static_cast<size_t>(k)) row.resize(static_cast<size_t>(k));
  return row.data();
}

// A whole dense matrix rounded to BF16.
Buffer rounded_to_bf16(const HostMatrix& matrix, ThreadPool& pool) {
  const auto bytes = static_cast<size_t>(matrix.n * matrix.k) * size_of(DType::bf16);
  Buffer rounded = allocate_aligned(bytes, "a weight matrix");
  auto* out = reinterpret_cast<uint16_t*>(rounded.data());
  pool.run([&](int thread) {
    float* row = weight_row(matrix.k);
    const Share share = share_of(matrix.n, thread, pool.size());
    for (int64_t n = share.first; n < share.last; ++n) {
      dequantize_row(matrix, n, {row, static_cast<size_t>(matrix.k)});
      for (int64_t k = 0; k < matrix.k; ++k) out[n * matrix.k + k] = float_to_bf16(row[k]);
    }
  });
  return rounded;
}

float to_float(uint16_t bf16) {
  return bf16_to_float(bf16);
}
float to_float(float value) {
  return value;
}

// 16 interleaved partial sums, added pairwise at the end: an order that depends on K alone and that a
// compiler can vectorise.
template <typename T>
float dot(const T* x, const float* w, int64_t k) {
  constexpr int kLanes = 16;
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += to_float(x[i + lane]) * w[i + lane];
  }
  for (; i < k; ++i) sums[i % kLanes] += to_float(x[i]) * w[i];
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

class ScalarLinear : public Linear {
 public:
  explicit ScalarLinear(bool f32) : f32_(f32) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override {
    check_canonical(matrix);
    Matrix packed;
    packed.n = matrix.n;
    packed.k = matrix.k;
    packed.quant = matrix.quant;
    packed.dense_dtype = matrix.dense_dtype;
    packed.scale_dtype = matrix.scale_dtype;
    if (!matrix.quant && !f32_ && matrix.dense_dtype != DType::bf16) {
      packed.dense_dtype = DType::bf16;
      packed.codes = rounded_to_bf16(matrix, pool);
      return packed;
    }
    packed.codes = copy_of(matrix.codes, "a weight matrix");
    packed.scales = copy_of(matrix.scales, "weight scales");
    packed.biases = copy_of(matrix.biases, "weight biases");
    return packed;
  }

  size_t packed_bytes(const HostMatrix& matrix) const override {
    const DType dense = f32_ ? matrix.dense_dtype : DType::bf16;
    const MatrixBytes bytes = canonical_bytes(matrix.n, matrix.k, dense, matrix.quant, matrix.scale_dtype);
    return bytes.codes + bytes.scales * (matrix.quant && matrix.quant->has_bias ? 2 : 1);
  }

  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override {
    if (x.dtype == DType::f32) {
      multiply_typed<float>(x, w, y, pool);
    } else {
      multiply_typed<uint16_t>(x, w, y, pool);
    }
  }

  void read_row(const Matrix& w, int64_t n, float* out) const override {
    dequantize_row(view_of(w), n, {out, static_cast<size_t>(w.k)});
  }

 private:
  template <typename T>
  static void multiply_typed(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) {
    const HostMatrix view = view_of(w);
    pool.run([&](int thread) {
      float* row = weight_row(w.k);
      const Share share = share_of(w.n, thread, pool.size());
      for (int64_t n = share.first; n < share.last; ++n) {
        dequantize_row(view, n, {row, static_cast<size_t>(w.k)});
        for (int64_t t = 0; t < x.rows; ++t) y.row<float>(t)[n] = dot(x.row<T>(t), row, w.k);
      }
    });
  }

  bool f32_;
};

}  // namespace

const Linear& scalar_linear() {
  static const ScalarLinear linear(false);
  return linear;
}

const Linear& scalar_f32_linear() {
  static const ScalarLinear linear(true);
  return linear;
}

}  // namespace tramontane
