// The state behind the CUDA runtime API, and the frame that every API function runs in.
#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/fault.h"
#include "tests/cuda_emulator/module.h"
#include "tests/cuda_emulator/options.h"
#include "tests/cuda_emulator/runtime/streams.h"
#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {

// What a __global__ function's host stub stands for.
struct Function {
  Module* module = nullptr;
  std::string name;
  const Kernel* kernel();  // lowered when first asked for
  u32 registers();         // of a thread, in the machine code; a usual number where there is none
  std::size_t max_dynamic_shared();
  std::optional<int> asked_dynamic_shared{};  // by cudaFuncSetAttribute
  bool is_loaded = false;                     // asked for its attributes, or launched
};

struct DeviceVariable {
  Module* module = nullptr;
  std::string name;
};

struct Runtime {
  static Runtime& instance();

  std::recursive_mutex mutex;
  Streams streams;
  std::vector<std::unique_ptr<Module>> modules;
  std::unordered_map<const void*, Function> functions;
  std::unordered_map<const void*, DeviceVariable> variables;
  cudaError_t sticky = cudaSuccess;  // after a fault every call fails, as on a GPU
  std::string report;                // the last fault's
  u64 launches = 0;
  u64 late_loads = 0;   // kernels whose first use was a launch
  u64 uploads = 0;      // copies from host to device
  u64 graph_bytes = 0;  // device memory that executable graphs take

  // Notes a fault and tells it on stderr.
  void fail(const Fault& fault);
  // Throws what calls get that must fail: there is no device, or this one's turn for FAIL_CALL has come.
  void inject(const char* call);
  // The function of a host stub. Throws Fault (cudaErrorInvalidDeviceFunction).
  Function& function(const void* stub);
  u64 variable_address(const void* symbol, u64* bytes = nullptr);
};

cudaError_t& last_error();

// An API function: alone, and none after a fault. Errors are thrown as Fault; those of a call are remembered
// for cudaGetLastError, those of the device for good.
struct CallError : Fault {
  using Fault::Fault;
};

template <class F>
cudaError_t api(F f, const char* call = __builtin_FUNCTION()) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  if (runtime.streams.in_callback()) return cudaErrorNotPermitted;
  cudaError_t result = runtime.sticky;
  if (result == cudaSuccess) {
    try {
      runtime.inject(call);
      f(runtime);
    } catch (const CallError& error) {
      result = error.error;
      if (result != cudaErrorNotReady && result != cudaErrorMemoryAllocation) runtime.report = error.what();
    } catch (const Fault& fault) {
      runtime.fail(fault);
      result = fault.error;
    }
  }
  if (result != cudaSuccess && result != cudaErrorNotReady) last_error() = result;
  return result;
}

// A call that fails as if by itself: the context is lost with it, or not, as the error says.
[[noreturn]] void fail_on_purpose(cudaError_t error, const std::string& what);

[[noreturn]] inline void refuse(cudaError_t error, const std::string& why) {
  throw CallError(error, why);
}
inline void require(bool condition, const std::string& why, cudaError_t error = cudaErrorInvalidValue) {
  if (!condition) refuse(error, why);
}

}  // namespace tramontane::emulator
