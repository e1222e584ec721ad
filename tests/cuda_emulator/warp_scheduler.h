// Which lanes of a warp run next, and when lanes and warps that wait may go on.
#pragma once

#include <random>

#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {

// Runs a warp until it exits, waits at a barrier, or has had its slice.
void run_warp(Warp& warp, std::mt19937_64& random);

// Lets the warps go whose barrier is complete. True when there were any. Throws when they met at different
// instructions.
bool release_barriers(Block& block);

// What every waiting warp waits for, for the message of a deadlock.
[[noreturn]] void report_deadlock(const Block& block);

}  // namespace tramontane::emulator
