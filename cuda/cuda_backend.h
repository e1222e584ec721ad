// The CUDA backend: every Backend operation on one GPU. See backend.h for the contract, README.md for the
// kernels.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/backend/backend.h"

namespace tramontane {

struct CudaOptions {
  int device = 0;
  // What a model may take of the device's memory: bytes, or (0) a share of it. The rest is the context's,
  // the kernels' and other programs'.
  uint64_t memory_bytes = 0;
  double memory_share = 0.9;
  bool graphs = true;  // false: every step runs eagerly
  // linear and linear_add of at least so many rows, outside of decode steps, are cuBLAS's, after reserve();
  // 0: none. It gives up that bits do not depend on the rows in a call: see cuda/cublas_gemm.h, kCublasRows.
  int32_t cublas_rows = 0;
};

// What tests ask about.
class CudaBackendInfo {
 public:
  virtual ~CudaBackendInfo() = default;
  virtual int n_graphs() const = 0;
  virtual uint64_t n_replays() const = 0;
};

// Throws std::runtime_error saying why the device cannot be used (cuda/device.h tells beforehand).
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options = {});

}  // namespace tramontane
