// What blocks of one launch tell each other through global memory: a block that reads what another one of the
// same launch wrote must find it published, that is, the writing block has passed a __threadfence() (or
// another fence of the device's scope) after the write, and then told of it by an atomic or strong access. On
// a GPU it may else read the old value.
#pragma once

#include <atomic>
#include <optional>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

// The blocks of a launch that runs: how many fences this one has passed, and how many each had passed when it
// last gave a signal.
struct FenceCounts {
  u64 launch = 0;
  std::atomic<u32>* signalled = nullptr;  // of each block; null: not watched
  u32 passed = 0;
};

// Keeps the last writer of every word of device memory, 4 bytes, that a kernel stored to. Strong accesses
// (volatile, relaxed, acquire, release) and atomics are how blocks signal: they are neither kept nor checked.
// Thread-safe.
class GlobalRaces {
 public:
  static constexpr u64 kMostBlocks = 1 << 24;
  static GlobalRaces& instance();

  // `offset`: from the begin of the device's memory.
  void wrote(const FenceCounts& fences, u32 block, u64 offset, u64 bytes);
  // The other block that wrote into this range and did not publish it.
  std::optional<u32> unpublished(const FenceCounts& fences, u32 block, u64 offset, u64 bytes) const;

 private:
  GlobalRaces();
  std::atomic<u32>* page_launch_;  // the last launch that stored to a page
  std::atomic<u64>* words_;        // launch (24 bits), block (24), its fences then (16)
};

}  // namespace tramontane::emulator
