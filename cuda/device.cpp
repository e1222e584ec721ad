#include "cuda/device.h"

#include <cstdio>

#include "cuda/check.cuh"

namespace tramontane::cuda {
namespace {

// The kernels use mma of BF16 and cp.async, which came with Ampere.
constexpr int kLeastMajor = 8;

// 13000 -> "13.0"
std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string gibibytes(uint64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", static_cast<double>(bytes) / (1 << 30));
  return text;
}

// Why there is no device, from what the first call of all said.
std::string why_none(cudaError_t error) {
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return "no CUDA driver on this machine";
  if (error == cudaErrorInsufficientDriver) {
    return "the CUDA driver is too old: it knows CUDA " + version_name(driver) + ", this program needs " +
           version_name(runtime);
  }
  if (error == cudaErrorNoDevice || error == cudaSuccess) return "no CUDA device on this machine";
  return describe(error, "cudaGetDeviceCount", "the search for devices");
}

}  // namespace

std::string DeviceInfo::to_string() const {
  return name + ", compute capability " + std::to_string(compute_major) + "." +
         std::to_string(compute_minor) + ", " + gibibytes(free_bytes) + " of " + gibibytes(total_bytes) +
         " GiB free";
}

DeviceProbe probe_device(int index) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    cudaGetLastError();
    return {{}, why_none(found)};
  }
  if (index < 0 || index >= count) {
    return {{},
            "--device " + std::to_string(index) + ": there " + (count == 1 ? "is" : "are") + " " +
                std::to_string(count) + (count == 1 ? " CUDA device, 0" : " CUDA devices, counted from 0")};
  }
  try {
    cudaDeviceProp properties{};
    CUDA_CHECK(cudaGetDeviceProperties(&properties, index), "a look at device " + std::to_string(index));
    DeviceInfo info{.index = index,
                    .name = properties.name,
                    .compute_major = properties.major,
                    .compute_minor = properties.minor,
                    .multiprocessors = properties.multiProcessorCount};
    if (info.compute_major < kLeastMajor) {
      return {{},
              info.name + " has compute capability " + std::to_string(info.compute_major) + "." +
                  std::to_string(info.compute_minor) + ", at least " + std::to_string(kLeastMajor) +
                  ".0 (Ampere) is needed"};
    }
    CUDA_CHECK(cudaSetDevice(index), "the choice of " + info.name);
    CUDA_CHECK(cudaFree(nullptr), "a context on " + info.name);  // made now: the memory it takes is not free
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total), "the memory of " + info.name);
    info.free_bytes = free;
    info.total_bytes = total;
    return {info, {}};
  } catch (const DeviceError& error) {
    return {{}, error.what()};
  }
}

}  // namespace tramontane::cuda
