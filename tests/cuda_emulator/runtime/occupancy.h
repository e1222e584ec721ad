// What a multiprocessor of the device has room for, counted as CUDA's occupancy calculator counts.
#pragma once

#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {

// The most threads that a block of the function can have: by its __launch_bounds__ and by its registers.
int most_threads(Function& function);

// How many blocks run at once; 0 when not even one can.
int blocks_per_multiprocessor(Function& function, int threads, std::size_t dynamic_shared);

}  // namespace tramontane::emulator
