// PlanesLinear: affine 4-bit matrices by integer planes (linear_planes_tile.h), all others by another Linear.
// Packing, x to integers, and the split over threads; the products are whatever kernel it is given.
// Stateless; engine thread only.
#pragma once

#include "cpu/linear.h"
#include "cpu/linear_planes_tile.h"

namespace tramontane {

class PlanesLinear final : public Linear {
 public:
  using Multiply = void (*)(const PlanesPart& part);

  // Up to `few` rows are multiplied by the VNNI kernel, more by `many`.
  PlanesLinear(const Linear& others, int64_t few, Multiply many) : others_(others), few_(few), many_(many) {}

  Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const override;
  size_t packed_bytes(const HostMatrix& matrix) const override;
  void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const override;
  void read_row(const Matrix& w, int64_t n, float* out) const override;

 private:
  const Linear& others_;
  int64_t few_;
  Multiply many_;
};

}  // namespace tramontane
