#include "tests/cuda_emulator/shared_memory.h"

#include <algorithm>
#include <cstring>

namespace tramontane::emulator {

void SharedMemory::reset(u32 bytes, bool checked) {
  bytes_ = bytes;
  checked_ = checked;
  data_.assign(bytes + 64, 0xFF);
  if (checked) words_.assign(bytes / 4 + 2, Word{});
}

bool SharedMemory::ordered(const Stamp& before, const Stamp& now, const WarpClock& clock) {
  if (before.warp != now.warp) return clock.time[before.warp] >= before.time;
  return before.lane == now.lane || before.sync != now.sync;
}

bool SharedMemory::conflicts(const Stamp& before, const Stamp& now, const WarpClock& clock) {
  if (before.warp == kNobody || !(before.mask & now.mask) || (before.atomic && now.atomic)) return false;
  return !ordered(before, now, clock);
}

// Two readers of different warps are remembered; a reader that is already ordered before this one makes room
// for it.
void SharedMemory::note_read(Word& word, const Stamp& now, const WarpClock& clock) {
  for (Stamp& read : word.reads) {
    if (read.warp != now.warp) continue;
    const bool together = read.sync == now.sync && read.lane != now.lane;
    const u8 mask = together ? read.mask : u8{0};
    read = now;
    read.mask |= mask;
    if (together) read.lane = kManyLanes;
    return;
  }
  const bool first_is_stale = word.reads[0].warp == kNobody || ordered(word.reads[0], now, clock);
  word.reads[first_is_stale ? 0 : 1] = now;
}

const char* SharedMemory::check_race(Word& word, const Stamp& now, const WarpClock& clock, Access kind) {
  if (conflicts(word.write, now, clock))
    return kind == Access::kRead ? "shared memory race (read after write without synchronisation)"
                                 : "shared memory race (write after write without synchronisation)";
  if (kind == Access::kRead) {
    note_read(word, now, clock);
    return nullptr;
  }
  for (const Stamp& read : word.reads)
    if (conflicts(read, now, clock)) return "shared memory race (write after read without synchronisation)";
  word.write = now;
  return nullptr;
}

const char* SharedMemory::access(u32 warp, int lane, const WarpClock& clock, u32 address, u32 bytes,
                                 Access kind, bool race, bool init) {
  Stamp now{clock.time[warp],      clock.sync, static_cast<u8>(warp),
            static_cast<u8>(lane), 0,          kind == Access::kAtomic};
  for (u32 at = address, end = address + bytes; at < end;) {
    const u32 first = at % 4;
    const u32 count = std::min(4 - first, end - at);
    now.mask = static_cast<u8>(((1u << count) - 1) << first);
    Word& word = words_[at / 4];
    if (race)
      if (const char* problem = check_race(word, now, clock, kind)) return problem;
    if (kind != Access::kWrite && init && (word.defined & now.mask) != now.mask)
      return "read of shared memory that was never written (or whose cp.async was not waited for)";
    if (kind != Access::kRead) word.defined |= now.mask;
    at += count;
  }
  return nullptr;
}

void SharedMemory::poison(u32 address, u32 bytes) {
  std::memset(data_.data() + address, 0xFF, bytes);
  if (!checked_) return;
  for (u32 at = address; at < address + bytes; ++at)
    words_[at / 4].defined &= static_cast<u8>(~(1u << at % 4));
}

}  // namespace tramontane::emulator
