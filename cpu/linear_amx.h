// AmxLinear: packing and the split over threads, for whatever performs the tile operations: the processor
// (plain_amx_linear() of linear.h), or the emulation that the tests run. Stateless; engine thread only.
#pragma once

#include "cpu/linear.h"
#include "cpu/linear_amx_tile.h"

namespace tramontane {

class AmxLinear final : public Linear {
 public:
  explicit AmxLinear(const AmxKernels& kernels) : kernels_(kernels) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override;
  size_t packed_bytes(const HostMatrix& matrix) const override;
  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override;
  void read_row(const Matrix& w, int64_t n, float* out) const override;

 private:
  void pack_rows(AmxPart& whole, ThreadPool& pool) const;

  const AmxKernels& kernels_;
};

}  // namespace tramontane
