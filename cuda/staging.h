// StagingRing: pinned host memory on its way to the device, in slots that are used in turn. A slot is written
// again only after the copies from it are over; nothing else ever waits. One thread.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "cuda/launch.h"

struct CUevent_st;

namespace tramontane::cuda {

class StagingRing {
 public:
  StagingRing(int slots, size_t slot_bytes);
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  size_t slot_bytes() const { return slot_bytes_; }
  // The next slot, whole, once the copies from it are over.
  std::span<std::byte> next();
  // Every copy from the current slot is queued on `stream`.
  void queued(Stream stream);

  // A place for `bytes` (at most slot_bytes) whose copy is then queued on `stream`, always the same: small
  // pieces share a slot.
  std::byte* place(size_t bytes, Stream stream);

 private:
  struct Slot {
    std::byte* data = nullptr;
    CUevent_st* copied = nullptr;
  };
  std::vector<Slot> slots_;
  size_t slot_bytes_;
  size_t current_ = 0, used_ = 0;
};

}  // namespace tramontane::cuda
