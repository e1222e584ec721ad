#include "cuda/read_places.h"

#include <cstring>

#include "cuda/check.cuh"
#include "engine/backend/check.h"

namespace tramontane::cuda {

ReadPlaces::ReadPlaces(size_t place_bytes) : place_bytes_(place_bytes) {
  for (Place& place : places_) {
    void* data = nullptr;
    CUDA_CHECK(cudaMallocHost(&data, place_bytes), "a place for results in pinned host memory");
    place.data = static_cast<std::byte*>(data);
    CUDA_CHECK(cudaEventCreateWithFlags(&place.copied, cudaEventDisableTiming), "a place for results");
  }
}

ReadPlaces::~ReadPlaces() {
  for (Place& place : places_) {
    if (place.copied != nullptr) {
      cudaEventSynchronize(place.copied);
      cudaEventDestroy(place.copied);
    }
    if (place.data != nullptr) cudaFreeHost(place.data);
  }
}

void ReadPlaces::start(int place, const std::byte* device, size_t bytes, Stream stream) {
  Place& to = places_.at(static_cast<size_t>(place));
  CHECK(!to.started, "a place is read into before its last result was taken");
  CHECK_LE(bytes, place_bytes_);
  if (bytes > 0) {
    CUDA_CHECK(cudaMemcpyAsync(to.data, device, bytes, cudaMemcpyDeviceToHost, stream), "a step's results");
  }
  CUDA_CHECK(cudaEventRecord(to.copied, stream), "a step's results");
  to.bytes = bytes;
  to.started = true;
}

void ReadPlaces::finish(int place, std::span<std::byte> host) {
  Place& from = places_.at(static_cast<size_t>(place));
  CHECK(from.started, "a result is taken that nobody asked for");
  CHECK_EQ(host.size(), from.bytes);
  CUDA_CHECK(cudaEventSynchronize(from.copied), "a step's results");
  if (!host.empty()) std::memcpy(host.data(), from.data, host.size());
  from.started = false;
}

}  // namespace tramontane::cuda
