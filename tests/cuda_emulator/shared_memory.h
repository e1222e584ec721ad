// A block's shared memory, with what racecheck and initcheck must know of every word in it.
#pragma once

#include <array>
#include <vector>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

enum class Access : u8 { kRead, kWrite, kAtomic };

// What each warp knows of the others' progress: time[w] is the last moment of warp w that happened before
// now. Barriers join them. Within a warp, moments are separated by __syncwarp and by barriers.
struct WarpClock {
  std::array<u32, 32> time{};
  u32 sync = 0;
};

class SharedMemory {
 public:
  // Fresh shared memory of a new block: 0xFF, never written.
  void reset(u32 bytes, bool checked);

  u32 bytes() const { return bytes_; }
  u8* data() { return data_.data(); }
  bool checked() const { return checked_; }

  // Notes an access that lies inside. Returns what is wrong with it ("race ..." or "read of ..."), or null.
  const char* access(u32 warp, int lane, const WarpClock& clock, u32 address, u32 bytes, Access kind,
                     bool race, bool init);
  // Makes bytes unwritten again: an asynchronous copy is on its way to them.
  void poison(u32 address, u32 bytes);

 private:
  static constexpr u8 kNobody = 0xFF;
  static constexpr u8 kManyLanes = 0xFE;

  struct Stamp {
    u32 time = 0;
    u32 sync = 0;
    u8 warp = kNobody;
    u8 lane = 0;
    u8 mask = 0;  // bytes of the word
    bool atomic = false;
  };
  struct Word {
    Stamp write;
    std::array<Stamp, 2> reads;
    u8 defined = 0;
  };

  static bool ordered(const Stamp& before, const Stamp& now, const WarpClock& clock);
  static bool conflicts(const Stamp& before, const Stamp& now, const WarpClock& clock);
  static void note_read(Word& word, const Stamp& now, const WarpClock& clock);
  static const char* check_race(Word& word, const Stamp& now, const WarpClock& clock, Access kind);

  u32 bytes_ = 0;
  bool checked_ = false;
  std::vector<u8> data_;
  std::vector<Word> words_;
};

}  // namespace tramontane::emulator
