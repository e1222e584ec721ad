// What the matmul benchmarks share: the shapes, formats and kernels they time, and matrices larger than the
// caches.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cpu/linear.h"
#include "tests/bench/machine_limits.h"

namespace tramontane {

struct Shape {
  int64_t n, k;
};

struct Format {
  std::string name;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
};

struct Kernel {
  std::string name;
  const Linear* linear;
};

// BF16 first, then one of each kind of quantised matrix.
const std::vector<Format>& formats();

// Those of this processor, the widest first.
std::vector<Kernel> kernels();

// The pool and the limits of so many threads; the last pool is kept.
ThreadPool& pool_of(int threads);
const MachineLimits& limits_of(int threads);
// What the instruction that the kernel is made of does at most.
double peak_gflop_s(const Kernel& kernel, int threads);

// To be printed before the cases of a run.
void add_limits_to_context();

// As many copies of a packed matrix as overflow the caches: every multiplication reads its weights from
// memory, as a model does.
class Copies {
 public:
  Copies(const Linear& linear, const Format& format, Shape shape, ThreadPool& pool);
  const Matrix& next() { return packed_[at_ = (at_ + 1) % packed_.size()]; }
  size_t bytes() const { return packed_[0].bytes(); }

 private:
  std::vector<Matrix> packed_;
  size_t at_ = 0;
};

// Rows x [rows, k] and y [rows, n] to multiply.
class Rows {
 public:
  Rows(int64_t rows, Shape shape);
  void multiply(const Linear& linear, const Matrix& w, ThreadPool& pool) {
    linear.multiply(in_, w, out_, pool);
  }

 private:
  std::vector<uint16_t> x_;
  std::vector<float> y_;
  TensorView in_, out_;
};

}  // namespace tramontane
