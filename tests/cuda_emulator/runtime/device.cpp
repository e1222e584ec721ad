#include "tests/cuda_emulator/runtime/device.h"

#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {
namespace {

// What differs among the devices of each capability; the CUDA programming guide's table "Technical
// Specifications per Compute Capability". Multiprocessors: of a T4, A100, A40, L40S, H100.
struct Limits {
  u32 compute;
  int shared_per_block, shared_per_multiprocessor, reserved_per_block;  // KiB
  int threads_per_multiprocessor, blocks_per_multiprocessor;
  int multiprocessors;
};
constexpr Limits kLimits[] = {{75, 64, 64, 0, 1024, 16, 40},
                              {80, 163, 164, 1, 2048, 32, 108},
                              {86, 99, 100, 1, 1536, 16, 84},
                              {89, 99, 100, 1, 1536, 24, 142},
                              {90, 227, 228, 1, 2048, 32, 132}};

const Limits& limits() {
  for (const Limits& known : kLimits)
    if (known.compute == options().compute) return known;
  return kLimits[0];  // options() takes no other
}

cudaDeviceProp make_properties() {
  const Limits& l = limits();
  cudaDeviceProp p{};
  p.major = static_cast<int>(options().compute / 10);
  p.minor = static_cast<int>(options().compute % 10);
  std::snprintf(p.name, sizeof p.name, "PTX emulator (compute %d.%d)", p.major, p.minor);
  p.totalGlobalMem = options().memory;
  p.sharedMemPerBlock = 48 * 1024;
  p.sharedMemPerBlockOptin = static_cast<std::size_t>(l.shared_per_block) * 1024;
  p.sharedMemPerMultiprocessor = static_cast<std::size_t>(l.shared_per_multiprocessor) * 1024;
  p.reservedSharedMemPerBlock = static_cast<std::size_t>(l.reserved_per_block) * 1024;
  p.regsPerBlock = p.regsPerMultiprocessor = 65536;
  p.warpSize = 32;
  p.memPitch = 2147483647;
  p.maxThreadsPerBlock = 1024;
  p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024;
  p.maxThreadsDim[2] = 64;
  p.maxGridSize[0] = 2147483647;
  p.maxGridSize[1] = p.maxGridSize[2] = 65535;
  p.totalConstMem = 65536;
  p.textureAlignment = 512;
  p.multiProcessorCount = l.multiprocessors;
  p.canMapHostMemory = 1;
  p.unifiedAddressing = 1;
  p.concurrentKernels = 1;
  p.asyncEngineCount = 3;
  p.memoryBusWidth = 5120;
  p.l2CacheSize = 40 * 1024 * 1024;
  p.maxThreadsPerMultiProcessor = l.threads_per_multiprocessor;
  p.maxBlocksPerMultiProcessor = l.blocks_per_multiprocessor;
  p.streamPrioritiesSupported = 1;
  p.hostRegisterSupported = 1;
  p.memoryPoolsSupported = 1;
  return p;
}

int attribute(cudaDeviceAttr attr) {
  const cudaDeviceProp& p = device_properties();
  switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
      return p.maxThreadsPerBlock;
    case cudaDevAttrMaxBlockDimX:
      return p.maxThreadsDim[0];
    case cudaDevAttrMaxBlockDimY:
      return p.maxThreadsDim[1];
    case cudaDevAttrMaxBlockDimZ:
      return p.maxThreadsDim[2];
    case cudaDevAttrMaxGridDimX:
      return p.maxGridSize[0];
    case cudaDevAttrMaxGridDimY:
      return p.maxGridSize[1];
    case cudaDevAttrMaxGridDimZ:
      return p.maxGridSize[2];
    case cudaDevAttrMaxSharedMemoryPerBlock:
      return static_cast<int>(p.sharedMemPerBlock);
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return static_cast<int>(p.sharedMemPerBlockOptin);
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      return static_cast<int>(p.sharedMemPerMultiprocessor);
    case cudaDevAttrReservedSharedMemoryPerBlock:
      return static_cast<int>(p.reservedSharedMemPerBlock);
    case cudaDevAttrWarpSize:
      return p.warpSize;
    case cudaDevAttrMaxRegistersPerBlock:
      return p.regsPerBlock;
    case cudaDevAttrMaxRegistersPerMultiprocessor:
      return p.regsPerMultiprocessor;
    case cudaDevAttrMultiProcessorCount:
      return p.multiProcessorCount;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return p.maxThreadsPerMultiProcessor;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
      return p.maxBlocksPerMultiProcessor;
    case cudaDevAttrComputeCapabilityMajor:
      return p.major;
    case cudaDevAttrComputeCapabilityMinor:
      return p.minor;
    case cudaDevAttrL2CacheSize:
      return p.l2CacheSize;
    case cudaDevAttrGlobalMemoryBusWidth:
      return p.memoryBusWidth;
    case cudaDevAttrMemoryClockRate:  // kHz
      return 1'215'000;
    case cudaDevAttrClockRate:
      return 1'410'000;
    case cudaDevAttrAsyncEngineCount:
      return p.asyncEngineCount;
    case cudaDevAttrConcurrentKernels:
      return p.concurrentKernels;
    case cudaDevAttrUnifiedAddressing:
      return p.unifiedAddressing;
    case cudaDevAttrCanMapHostMemory:
      return p.canMapHostMemory;
    case cudaDevAttrMemoryPoolsSupported:
      return p.memoryPoolsSupported;
    case cudaDevAttrHostRegisterSupported:
      return p.hostRegisterSupported;
    case cudaDevAttrIntegrated:
    case cudaDevAttrManagedMemory:
    case cudaDevAttrConcurrentManagedAccess:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrCooperativeLaunch:
      return 0;
    default:
      refuse(cudaErrorInvalidValue,
             "device attribute " + std::to_string(static_cast<int>(attr)) + " is not known to the emulator");
  }
}

void check_device(int device) {
  require(device == 0, "there is one device, 0", cudaErrorInvalidDevice);
}

}  // namespace

const cudaDeviceProp& device_properties() {
  // Made anew where a test has set another device.
  static u32 made_for = 0;
  static cudaDeviceProp properties;
  if (made_for != options().compute) {
    properties = make_properties();
    made_for = options().compute;
  }
  properties.totalGlobalMem = options().memory;
  return properties;
}

}  // namespace tramontane::emulator

using namespace tramontane::emulator;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return api([&](Runtime&) { *count = 1; });
}
cudaError_t cudaGetDevice(int* device) {
  return api([&](Runtime&) { *device = 0; });
}
cudaError_t cudaSetDevice(int device) {
  return api([&](Runtime&) { check_device(device); });
}
cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
  return api([&](Runtime&) { check_device(device); });
}
cudaError_t cudaSetDeviceFlags(unsigned) {
  return api([](Runtime&) {});
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return api([&](Runtime&) {
    check_device(device);
    *properties = device_properties();
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attr, int device) {
  return api([&](Runtime&) {
    check_device(device);
    *value = attribute(attr);
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return api([&](Runtime&) {
    if (least) *least = 0;
    if (greatest) *greatest = -5;
  });
}

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int device) {
  return api([&](Runtime&) {
    check_device(device);
    require(length >= 13, "13 bytes are needed for a PCI bus id");
    std::strcpy(id, "0000:00:00.0");
  });
}

cudaError_t cudaDeviceSynchronize() {
  return api([](Runtime& runtime) {
    runtime.streams.forbid_in_capture("cudaDeviceSynchronize");
    runtime.streams.synchronize_all();
  });
}

// Also ends the state after a fault: the one way to go on in the same process.
cudaError_t cudaDeviceReset() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  runtime.streams.abandon();
  runtime.sticky = cudaSuccess;
  last_error() = cudaSuccess;
  DeviceMemory::instance().release_all();
  for (const auto& module : runtime.modules) module->unload();
  for (auto& [stub, function] : runtime.functions) function.asked_dynamic_shared.reset();
  return cudaSuccess;
}

// These two answer also where there is no driver.
cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = kRuntimeVersion;
  return cudaSuccess;
}
cudaError_t cudaDeviceSetLimit(cudaLimit, std::size_t) {
  return api([](Runtime&) {});
}
cudaError_t cudaDeviceSetCacheConfig(cudaFuncCache) {
  return api([](Runtime&) {});
}
cudaError_t cudaProfilerStart() {
  return cudaSuccess;
}
cudaError_t cudaProfilerStop() {
  return cudaSuccess;
}

}  // extern "C"
