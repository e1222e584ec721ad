// WeightLoader: weights on their way to the device. They are packed (pack.h) into pinned memory by several
// threads, and each piece is copied on a stream of its own while the next one is packed. The thread that
// loads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "cuda/launch.h"
#include "cuda/staging.h"
#include "engine/backend/matrix.h"

struct CUevent_st;

namespace tramontane::cuda {

// Bytes of device memory that load() takes for `matrix`. Throws std::runtime_error when no kernel takes its
// layout.
uint64_t device_bytes_for(const HostMatrix& matrix);

class WeightLoader {
 public:
  WeightLoader();
  ~WeightLoader();
  WeightLoader(const WeightLoader&) = delete;
  WeightLoader& operator=(const WeightLoader&) = delete;

  // Allocates, packs and queues the copies, which later work on `user` waits for; the host's data is read
  // before this returns. Throws std::runtime_error when there is no memory (naming `label`) or no kernel for
  // the layout.
  Matrix load(const HostMatrix& matrix, std::string_view label, Stream user);
  // Gives the pinned memory back, once the copies are over; another load() takes it anew.
  void release() { staging_.reset(); }

 private:
  StagingRing& staging(size_t least);

  Stream copies_ = nullptr;
  CUevent_st* copied_ = nullptr;
  std::optional<StagingRing> staging_;
};

}  // namespace tramontane::cuda
