// Checks a launch as the CUDA runtime does and puts it into a stream.
#pragma once

#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {

// `arguments`: one pointer for each kernel parameter; they are copied now.
void launch_kernel(Runtime& runtime, Function& function, Dim grid, Dim block, void** arguments,
                   std::size_t dynamic_shared, cudaStream_t stream);

}  // namespace tramontane::emulator
