// What a run of the emulator can be told: by environment variables CUDA_EMULATOR_<NAME>, read once, or by
// cudaEmulatorSet.
#pragma once

#include <string>
#include <string_view>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

// When work that was put into a stream is performed.
enum class StreamOrder {
  kRandom,  // some at every call, in a seeded order that the dependencies allow
  kLate,    // only what a synchronisation needs, and only then
  kEager,   // at once
};

struct Options {
  u64 seed = 1;                                // SEED: order of blocks, warps and stream work
  u32 threads = 0;                             // THREADS: host threads; 0: all cores
  u64 memory = 80ull << 30;                    // MEMORY: bytes of device memory that the device says it has
  StreamOrder streams = StreamOrder::kRandom;  // STREAMS: random, late or eager
  bool memcheck = true;                        // MEMCHECK: allocation bounds and lifetime
  bool racecheck = true;                       // RACECHECK: shared memory
  bool synccheck = true;                       // SYNCCHECK: aligned barriers
  bool initcheck = true;         // INITCHECK: 0 lets a read of memory never written return 0xFF bytes
  u64 watchdog = 4'000'000'000;  // WATCHDOG: loop iterations of one warp after which it counts as hung
};

Options& options();

// Sets one option by its name above (any case). Throws std::invalid_argument, naming it, for an unknown name
// or value.
void set_option(std::string_view name, std::string_view value);

}  // namespace tramontane::emulator
