#include "cuda/device_buffer.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <string>

#include "cuda/check.cuh"

namespace tramontane::cuda {
namespace {

constexpr uint64_t kSharedUnit = 512, kPage = uint64_t{2} << 20;

std::atomic<uint64_t> allocated{0}, releases{0};

void release_device(std::byte* data, size_t size) {
  cudaFree(data);  // waits for work that uses it; an error is the context's, and the next call reports it
  allocated -= device_bytes_for(size);
  ++releases;
}

[[noreturn]] void out_of_memory(size_t bytes, std::string_view label) {
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  throw std::runtime_error("not enough GPU memory for " + std::string(label) + ": " + std::to_string(bytes) +
                           " bytes wanted, " + std::to_string(free) + " of " + std::to_string(total) +
                           " are free; lower --gpu-memory, --kv-cache-bytes or --step-tokens, or end other "
                           "programs on this GPU");
}

}  // namespace

Buffer allocate_device(size_t bytes, std::string_view label) {
  bytes = std::max<size_t>(bytes, 1);
  void* data = nullptr;
  const cudaError_t error = cudaMalloc(&data, bytes);
  if (error == cudaErrorMemoryAllocation) out_of_memory(bytes, label);
  check_call(error, "cudaMalloc", label);
  allocated += device_bytes_for(bytes);
  return {static_cast<std::byte*>(data), bytes, release_device};
}

uint64_t device_bytes_for(uint64_t bytes) {
  const uint64_t unit = bytes < kPage / 2 ? kSharedUnit : kPage;
  return (bytes + unit - 1) / unit * unit;
}

uint64_t device_bytes_allocated() {
  return allocated;
}

uint64_t device_releases() {
  return releases;
}

}  // namespace tramontane::cuda
