#include "tests/cuda_emulator/global_races.h"

#include <algorithm>

#include "tests/cuda_emulator/device_memory.h"

namespace tramontane::emulator {
namespace {

constexpr u64 kWord = 4, kPage = 4096;
constexpr u32 kMostFences = 0xFFFF;  // beyond them everything counts as published

u64 stamp(u64 launch, u32 block, u32 fences) {
  return (launch & 0xFFFFFF) << 40 | u64{block} << 16 | fences;
}

}  // namespace

GlobalRaces& GlobalRaces::instance() {
  static auto* races = new GlobalRaces;
  return *races;
}

GlobalRaces::GlobalRaces()
    : page_launch_(static_cast<std::atomic<u32>*>(reserve_zeros(DeviceMemory::kArenaBytes / kPage * 4))),
      words_(static_cast<std::atomic<u64>*>(reserve_zeros(DeviceMemory::kArenaBytes / kWord * 8))) {}

void GlobalRaces::wrote(const FenceCounts& fences, u32 block, u64 offset, u64 bytes) {
  const u64 end = offset + bytes;
  for (u64 page = offset / kPage; page <= (end - 1) / kPage; ++page)
    page_launch_[page].store(static_cast<u32>(fences.launch), std::memory_order_relaxed);
  const u32 passed = std::min(fences.passed, kMostFences);
  const u64 value = stamp(fences.launch, block, passed);
  for (u64 word = offset / kWord; word * kWord < end; ++word) {
    // Of a word that is written in part nothing is known: blocks may share it.
    const bool is_whole = word * kWord >= offset && (word + 1) * kWord <= end;
    words_[word].store(is_whole ? value : 0, std::memory_order_relaxed);
  }
}

std::optional<u32> GlobalRaces::unpublished(const FenceCounts& fences, u32 block, u64 offset,
                                            u64 bytes) const {
  const u64 end = offset + bytes;
  for (u64 word = offset / kWord; word * kWord < end; ++word) {
    const std::atomic<u32>& page = page_launch_[word * kWord / kPage];
    if (page.load(std::memory_order_relaxed) != static_cast<u32>(fences.launch)) {
      word = (word * kWord / kPage + 1) * kPage / kWord - 1;  // the loop goes on with the next page
      continue;
    }
    const u64 value = words_[word].load(std::memory_order_relaxed);
    const u32 writer = static_cast<u32>(value >> 16 & 0xFFFFFF),
              passed = static_cast<u32>(value & kMostFences);
    if (value >> 40 != (fences.launch & 0xFFFFFF) || writer == block || passed == kMostFences) continue;
    if (fences.signalled[writer].load(std::memory_order_acquire) <= passed) return writer;
  }
  return std::nullopt;
}

}  // namespace tramontane::emulator
