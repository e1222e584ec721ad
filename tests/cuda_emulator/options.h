// What a run of the emulator can be told: by environment variables CUDA_EMULATOR_<NAME>, read once, or by
// cudaEmulatorSet.
#pragma once

#include <driver_types.h>

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

// A failure on purpose: the n-th event of a name, counted from when it was asked for.
struct Injection {
  std::string name;   // "*": every name; empty: no injection
  u64 countdown = 0;  // events of the name until it strikes; 0: it did, or there is none
  cudaError_t error = cudaErrorUnknown;

  // Counts an event; true for the one that must fail. A call is meant by its whole name, a kernel by a part.
  bool strikes_call(std::string_view call) { return counts(name == "*" || call == name); }
  bool strikes_kernel(std::string_view kernel) {
    return counts(name == "*" || kernel.find(name) != kernel.npos);
  }

 private:
  bool counts(bool is_meant) { return countdown != 0 && is_meant && --countdown == 0; }
};

struct Options {
  u64 seed = 1;                                // SEED: order of blocks, warps and stream work
  u32 threads = 0;                             // THREADS: host threads; 0: all cores
  u64 memory = 80ull << 30;                    // MEMORY: bytes of device memory that the device says it has
  u64 graph_memory = 0;                        // GRAPH_MEMORY: bytes of it that an executable graph takes
  StreamOrder streams = StreamOrder::kRandom;  // STREAMS: random, late or eager
  bool memcheck = true;                        // MEMCHECK: allocation bounds and lifetime
  bool racecheck = true;                       // RACECHECK: shared memory
  bool synccheck = true;                       // SYNCCHECK: aligned barriers
  bool initcheck = true;  // INITCHECK: 0 lets a read of memory never written return 0xFF bytes
  u32 devices = 1;        // DEVICES: 0 or 1
  int driver = 13000;     // DRIVER: version as CUDA counts; less than 13000: too old for the runtime; 0: none
  u32 compute = 80;       // COMPUTE: the device's capability: 75 (it runs no kernel), 80, 86, 89, 90. PTX is
                          // chosen by it when the program starts
  Injection fail_call;    // FAIL_CALL=cudaMalloc:3[:cudaError…]: the third call of a function is refused
  Injection fail_launch;  // FAIL_LAUNCH=rope:1[:…]: a launch of a kernel whose name holds "rope" is refused
  Injection fail_run;     // FAIL_RUN=rope:1[:…]: it is taken and faults while it runs, also out of a graph
  u64 watchdog = 4'000'000'000;  // WATCHDOG: loop iterations of one warp after which it counts as hung
};

Options& options();

// Sets one option by its name above (any case). Throws std::invalid_argument, naming it, for an unknown name
// or value.
void set_option(std::string_view name, std::string_view value);

}  // namespace tramontane::emulator
