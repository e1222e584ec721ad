// Short names for the machine's numbers, and the loop over the lanes of a warp.
#pragma once

#include <cstdint>

namespace tramontane::emulator {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

using LaneMask = u32;
constexpr int kLanes = 32;
constexpr LaneMask kAllLanes = ~0u;

// Lanes are independent of each other: a destination may be a source, but only lane by lane.
#if defined(__clang__)
#define EMULATOR_LANES(lane) \
  _Pragma("clang loop vectorize(assume_safety)") for (int lane = 0; lane < kLanes; ++lane)
#else
#define EMULATOR_LANES(lane) _Pragma("GCC ivdep") for (int lane = 0; lane < kLanes; ++lane)
#endif

}  // namespace tramontane::emulator
