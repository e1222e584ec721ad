// What the tests of the CUDA backend share.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/cuda_backend.h"

namespace tramontane {

// Of the device's memory, for the backend; and of that, for keys and values.
inline constexpr uint64_t kMemory = uint64_t{256} << 20;
inline constexpr uint64_t kPlenty = 4 << 20;

inline std::unique_ptr<Backend> make_backend(bool graphs = true) {
  return make_cuda_backend({.memory_bytes = kMemory, .graphs = graphs});
}

}  // namespace tramontane
