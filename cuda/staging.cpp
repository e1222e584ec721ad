#include "cuda/staging.h"

#include "cuda/check.cuh"
#include "engine/backend/check.h"

namespace tramontane::cuda {

StagingRing::StagingRing(int slots, size_t slot_bytes)
    : slots_(static_cast<size_t>(slots)), slot_bytes_(slot_bytes), used_(slot_bytes) {
  for (Slot& slot : slots_) {
    void* data = nullptr;
    CUDA_CHECK(cudaMallocHost(&data, slot_bytes), "a staging buffer of pinned host memory");
    slot.data = static_cast<std::byte*>(data);
    CUDA_CHECK(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "a staging buffer");
  }
  current_ = slots_.size() - 1;
}

StagingRing::~StagingRing() {
  for (Slot& slot : slots_) {
    if (slot.copied != nullptr) {
      cudaEventSynchronize(slot.copied);
      cudaEventDestroy(slot.copied);
    }
    if (slot.data != nullptr) cudaFreeHost(slot.data);
  }
}

std::span<std::byte> StagingRing::next() {
  current_ = (current_ + 1) % slots_.size();
  CUDA_CHECK(cudaEventSynchronize(slots_[current_].copied), "a copy to the device");
  return {slots_[current_].data, slot_bytes_};
}

void StagingRing::queued(Stream stream) {
  CUDA_CHECK(cudaEventRecord(slots_[current_].copied, stream), "a copy to the device");
}

std::byte* StagingRing::place(size_t bytes, Stream stream) {
  CHECK_LE(bytes, slot_bytes_);
  if (used_ + bytes > slot_bytes_) {
    queued(stream);
    next();
    used_ = 0;
  }
  std::byte* place = slots_[current_].data + used_;
  used_ += (bytes + 15) / 16 * 16;  // aligned copies are the fast ones
  if (used_ > slot_bytes_) used_ = slot_bytes_;
  return place;
}

}  // namespace tramontane::cuda
