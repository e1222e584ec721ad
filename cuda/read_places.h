// ReadPlaces: results on their way to the host, in two places of pinned memory, so that a step's can be
// waited for while the next one runs. One thread.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "cuda/launch.h"

struct CUevent_st;

namespace tramontane::cuda {

class ReadPlaces {
 public:
  explicit ReadPlaces(size_t place_bytes);
  ~ReadPlaces();
  ReadPlaces(const ReadPlaces&) = delete;
  ReadPlaces& operator=(const ReadPlaces&) = delete;

  // Queues a copy of at most place_bytes, perhaps none. The place's last result has been taken.
  void start(int place, const std::byte* device, size_t bytes, Stream stream);
  // Waits until all that was queued before start() is done, the copy too, and takes the result.
  void finish(int place, std::span<std::byte> host);

 private:
  struct Place {
    std::byte* data = nullptr;
    CUevent_st* copied = nullptr;
    size_t bytes = 0;
    bool started = false;
  };
  std::array<Place, 2> places_;
  size_t place_bytes_;
};

}  // namespace tramontane::cuda
