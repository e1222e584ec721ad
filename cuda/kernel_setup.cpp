#include "cuda/kernel_setup.h"

#include <map>
#include <mutex>
#include <set>
#include <tuple>

#include "cuda/check.cuh"

namespace tramontane::cuda {
namespace {

int current_device(const char* operation) {
  int device = 0;
  CUDA_CHECK(cudaGetDevice(&device), operation);  // the runtime's own variable: no call of the driver
  return device;
}

// Of what the functions below remember: small, and looked up twice a launch at most.
std::mutex mutex;

}  // namespace

void load_kernel(const void* kernel, size_t dynamic_bytes, const char* operation) {
  static std::set<std::pair<int, const void*>> loaded;
  const std::pair key(current_device(operation), kernel);
  const std::lock_guard lock(mutex);
  if (loaded.contains(key)) return;
  cudaFuncAttributes attributes{};
  CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel), operation);  // loads, where setting one may not
  if (dynamic_bytes > 0) {
    CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(dynamic_bytes)),
               operation);
  }
  loaded.insert(key);
}

int blocks_at_once(const void* kernel, int threads, size_t dynamic_bytes, const char* operation) {
  static std::map<std::tuple<int, const void*, int, size_t>, int> known;
  const int device = current_device(operation);
  const std::tuple key(device, kernel, threads, dynamic_bytes);
  const std::lock_guard lock(mutex);
  if (const auto found = known.find(key); found != known.end()) return found->second;
  int processors = 0, blocks = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), operation);
  CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, dynamic_bytes),
             operation);
  return known[key] = processors * blocks;
}

}  // namespace tramontane::cuda
