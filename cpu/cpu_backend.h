// The CPU backend: every Backend operation on host memory, kernels chosen at run time for this processor. See backend.h for the contract.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/backend/backend.h"

namespace tramontane {

struct CpuOptions {
  int threads = 0;            // 0: one per available core
  std::string kernels;        // "", "scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "amxbf16", "amx": empty takes the best that this processor has
  bool f32 = false;           // F32 arithmetic (activations, KV cache, weights as stored): the reference mode; runs on the scalar kernels
};

// Throws std::runtime_error for kernels that are unknown or that this processor cannot run.
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options = {});

// The kernel sets that this processor can run, slowest (scalar) first.
std::vector<std::string> available_cpu_kernels();

}  // namespace tramontane
