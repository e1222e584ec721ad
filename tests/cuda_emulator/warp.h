// A warp and its block in execution, and how handlers reach registers and memory.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/fault.h"
#include "tests/cuda_emulator/global_races.h"
#include "tests/cuda_emulator/program.h"
#include "tests/cuda_emulator/shared_memory.h"

namespace tramontane::emulator {

// Generic addresses of shared, local and parameter memory: a window bit, then the address in that memory.
constexpr u64 kSharedWindow = 1ull << 60;
constexpr u64 kLocalWindow = 1ull << 61;
constexpr u64 kParamWindow = 1ull << 62;
constexpr u64 kWindows = kSharedWindow | kLocalWindow | kParamWindow;

struct Dim {
  u32 x = 1, y = 1, z = 1;
  u64 volume() const { return u64{x} * y * z; }
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim grid;
  Dim block;
  u32 dynamic_shared = 0;
  std::vector<u8> parameters;
  u64 id = 0;
};

// Lanes of a warp that are at the same instruction and wait for their turn, or for other lanes.
struct LaneGroup {
  u32 pc;
  LaneMask mask;
  bool blocked;         // waits at a .sync instruction for lanes that are not there yet
  LaneMask needed = 0;  // the lanes that it waits for, when it does
};

struct PendingCopy {
  u64 source;
  u32 destination;
  u32 bytes;
  u32 source_bytes;  // the rest is zeros
  int lane;
  const Instruction* instruction;
};

struct Block;

struct Warp {
  std::array<u8*, 2> pools{};  // of Operand::Pool
  u32 pc = 0;
  LaneMask mask = 0;  // lanes that run now
  u32 limit = 0;      // pc at which another group may be met
  LaneMask live = 0;
  bool stop = false;  // leave the warp for now
  u32 slice = 0;      // backward branches left before another warp takes its turn
  u64 slices = 0;
  bool rotate = false;  // the last slice ran out: let another group of lanes go first
  Block* block = nullptr;
  const Kernel* kernel = nullptr;
  u32 index = 0;
  std::vector<LaneGroup> groups;

  // The barrier it waits at: -1 for none.
  int barrier = -1;
  const Instruction* barrier_instruction = nullptr;
  WarpClock clock;

  std::vector<PendingCopy> open_copies;
  std::vector<std::vector<PendingCopy>> committed_copies;
  std::vector<u8> local;
  AddressRange last_range;
  u64 last_generation = 0;
};

struct Barrier {
  bool in_use = false;
  u32 expected = 0;                // threads; 0: all of the block
  std::vector<u32> arrived_warps;  // that do not wait
  u32 popcount = 0;
  bool all = true;
  bool any = false;
};

struct Block {
  const Launch* launch = nullptr;
  Dim index;
  u32 number = 0;  // index as one number
  FenceCounts fences;
  u32 threads = 0;
  SharedMemory shared;
  std::vector<Warp> warps;
  std::array<Barrier, 16> barriers;
};

template <class T>
T* lanes(const Warp& warp, Operand operand) {
  return reinterpret_cast<T*>(warp.pools[operand.pool()] + operand.offset());
}

inline LaneMask& predicate(const Warp& warp, Operand operand) {
  return *lanes<LaneMask>(warp, operand);
}

inline void write_predicate(const Warp& warp, Operand operand, LaneMask mask, LaneMask value) {
  if (!operand.exists()) return;
  LaneMask& p = predicate(warp, operand);
  p = (p & ~mask) | (value & mask);
}

// d[lane] = f(lane) for the lanes of `mask`. f is called for the others too and must not mind.
template <class T, class F>
void write_lanes(T* d, LaneMask mask, F f) {
  if (mask == kAllLanes) {
    EMULATOR_LANES(lane) d[lane] = f(lane);
    return;
  }
  T result[kLanes];
  EMULATOR_LANES(lane) result[lane] = f(lane);
  EMULATOR_LANES(lane) d[lane] = (mask >> lane & 1) ? result[lane] : d[lane];
}

template <class T, class F>
void write_operand(const Warp& warp, Operand operand, LaneMask mask, F f) {
  if (operand.exists()) write_lanes(lanes<T>(warp, operand), mask, f);
}

template <class F>
void for_each_lane(LaneMask mask, F f) {
  for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}

// Throws a Fault that names the thread, block, kernel, source line and instruction.
[[noreturn]] void fault(const Warp& warp, const Instruction& instruction, int lane, cudaError_t error,
                        const std::string& what);

// Host address of `bytes` bytes of one lane's memory after all checks. Generic addresses are taken apart for
// Space::kGlobal. A read of global memory never written, with initcheck off, returns bytes of 0xFF.
u8* resolve(Warp& warp, const Instruction& instruction, int lane, u64 address, u32 bytes, ptx::Space space,
            Access access);

// Whether a whole range of global memory may be accessed at once: one live allocation, and everything written
// if it is read.
bool resolve_range(Warp& warp, const Instruction& instruction, u64 address, u64 bytes, Access access);

// The address that a lane's address operand and the instruction's immediate give.
inline u64 lane_address(const Warp& warp, const Instruction& instruction, Operand operand, int lane,
                        s64 offset) {
  if (instruction.wide_address) return lanes<u64>(warp, operand)[lane] + static_cast<u64>(offset);
  return static_cast<u32>(lanes<u32>(warp, operand)[lane] + static_cast<u32>(offset));
}

// True when every live lane of `needed` is among `here`, the lanes that perform this .sync instruction.
// Otherwise these now wait for the others and the handler must return: it is called again when more have
// come.
bool lanes_arrived(Warp& warp, const Instruction& instruction, LaneMask here, LaneMask needed);

}  // namespace tramontane::emulator
