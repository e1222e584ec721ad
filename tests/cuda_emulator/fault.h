// A fault of the emulated device: what the program did wrong, and the CUDA error that it gets for it.
#pragma once

#include <driver_types.h>

#include <stdexcept>
#include <string>

namespace tramontane::emulator {

struct Fault : std::runtime_error {
  Fault(cudaError_t code, const std::string& message) : std::runtime_error(message), error(code) {}
  cudaError_t error;
};

}  // namespace tramontane::emulator
