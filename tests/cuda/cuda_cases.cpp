// The CUDA backend, on a GPU or on the PTX emulator.
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/control.h"
#include "tests/support/backend_cases.h"

namespace tramontane {

std::vector<BackendCase> backend_cases() {
  return {{.name = "cuda",
           .make = [](int) { return make_cuda_backend({.memory_bytes = uint64_t{256} << 20}); },
           .attention_rounding = 0x1p-9,  // to BF16
           .head_dims = {8, 16, 32, 64, 80, 96, 128, 256},
           .is_slow = emulator::is_emulated()}};
}

std::vector<BackendCase> all_arithmetic_cases() {
  return backend_cases();
}

}  // namespace tramontane
