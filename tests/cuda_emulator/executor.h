// Runs launches: blocks over the host's threads in a seeded order, warps of a block in turns, lanes of a warp
// together.
#pragma once

#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {

// Runs all blocks of a launch. Throws the first Fault.
void run_launch(const Launch& launch);

}  // namespace tramontane::emulator
