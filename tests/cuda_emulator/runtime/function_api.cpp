// What a program may ask and set about kernels, and the emulator's own calls.
#include <cuda_runtime_api.h>

#include <stdexcept>

#include "tests/cuda_emulator/runtime/device.h"
#include "tests/cuda_emulator/runtime/occupancy.h"
#include "tests/cuda_emulator/runtime/runtime.h"

using namespace tramontane::emulator;

extern "C" {

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* stub) {
  return api([&](Runtime& runtime) {
    Function& function = runtime.function(stub);
    const Kernel* kernel = function.kernel();
    function.is_loaded = true;
    *attributes = {};
    attributes->sharedSizeBytes = kernel->static_shared;
    attributes->localSizeBytes = kernel->local_bytes;
    attributes->maxThreadsPerBlock = most_threads(function);
    attributes->numRegs = static_cast<int>(function.registers());
    attributes->ptxVersion = attributes->binaryVersion = 80;
    attributes->maxDynamicSharedSizeBytes = static_cast<int>(function.max_dynamic_shared());
  });
}

cudaError_t cudaFuncSetAttribute(const void* stub, cudaFuncAttribute attribute, int value) {
  return api([&](Runtime& runtime) {
    Function& function = runtime.function(stub);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return;
    require(attribute == cudaFuncAttributeMaxDynamicSharedMemorySize,
            "function attribute that the emulator does not know", cudaErrorNotSupported);
    const std::size_t most = device_properties().sharedMemPerBlockOptin - function.kernel()->static_shared;
    require(value >= 0 && static_cast<std::size_t>(value) <= most,
            function.name + ": " + std::to_string(value) +
                " bytes of dynamic shared memory, the device allows " + std::to_string(most));
    function.asked_dynamic_shared = value;
  });
}

cudaError_t cudaFuncSetCacheConfig(const void* stub, cudaFuncCache) {
  return api([&](Runtime& runtime) { runtime.function(stub); });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* stub, int threads,
                                                                   std::size_t dynamic_shared, unsigned) {
  return api([&](Runtime& runtime) {
    require(threads > 0, "a block has at least one thread");
    *blocks = blocks_per_multiprocessor(runtime.function(stub), threads, dynamic_shared);
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* stub, int threads,
                                                          std::size_t dynamic_shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, stub, threads, dynamic_shared, 0);
}

// See control.h.
int cudaEmulatorSet(const char* name, const char* value) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  try {
    set_option(name, value);
    return 0;
  } catch (const std::invalid_argument& error) {
    runtime.report = error.what();
    return 1;
  }
}

const char* cudaEmulatorReport() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  static thread_local std::string text;
  text = runtime.report;
  return text.c_str();
}

const char* cudaEmulatorUnsupported() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  static thread_local std::string text;
  text.clear();
  for (auto& [stub, function] : runtime.functions)
    for (const std::string& instruction : function.kernel()->unsupported)
      text += function.name + ": " + instruction + "\n";
  return text.c_str();
}

const char* cudaEmulatorKernels() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  static thread_local std::string text;
  text.clear();
  for (const auto& [stub, function] : runtime.functions) text += demangled(function.name) + "\n";
  return text.c_str();
}

unsigned long long cudaEmulatorLaunches() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  return runtime.launches;
}

unsigned long long cudaEmulatorLateLoads() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  return runtime.late_loads;
}

unsigned long long cudaEmulatorUploads() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  return runtime.uploads;
}

// For libraries beside the runtime (the cuBLAS shim).
int cudaEmulatorEnqueue(cudaStream_t stream, void (*work)(void*), void* data) {
  return api(
      [&](Runtime& runtime) { runtime.streams.submit(runtime.streams.get(stream), [=] { work(data); }); });
}

// Host address of device memory that is alive and, when it is read, written; null otherwise, with the reason
// as a fault.
void* cudaEmulatorMemory(const void* pointer, std::size_t bytes, int writes, const char* what) {
  DeviceMemory& memory = DeviceMemory::instance();
  const u64 address = reinterpret_cast<u64>(pointer);
  AddressRange range;
  if (!memory.find(address, bytes, range))
    throw Fault(cudaErrorIllegalAddress, std::string(what) + ": " + std::to_string(bytes) +
                                             " bytes that end " + memory.explain(address + bytes - 1));
  if (!writes && options().initcheck && !memory.is_defined(address, bytes))
    throw Fault(cudaErrorLaunchFailure, std::string(what) + ": reads memory that was never written");
  if (writes) memory.set_defined(address, bytes);
  return memory.host(address);
}

}  // extern "C"
