// Every CUDA call's result becomes a DeviceError that names the call and what it was for. For files of cuda/
// that see CUDA's headers. Any thread.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "cuda/device_error.h"

namespace tramontane::cuda {

// Errors of the device and of kernels while they run. They end the context, and the next call whatever it is
// returns them, so that the call tells when they were noticed, not what failed.
inline bool ends_context(cudaError_t error) {
  switch (error) {
    case cudaErrorAssert:
    case cudaErrorContained:
    case cudaErrorECCUncorrectable:
    case cudaErrorExternalDevice:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorMpsClientTerminated:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

// "cudaMalloc for layers.3.w2: out of memory (cudaErrorMemoryAllocation)"
inline std::string describe(cudaError_t error, std::string_view call, std::string_view operation) {
  // The call's name without its arguments: they are names in our source, which tell a user nothing.
  return std::string(call.substr(0, call.find('('))) + " for " + std::string(operation) + ": " +
         cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ")" +
         (ends_context(error) ? ", of this or of earlier work: CUDA_LAUNCH_BLOCKING=1 shows which" : "");
}

inline void check_call(cudaError_t error, std::string_view call, std::string_view operation) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // an error that leaves the context whole must not be found again by the next check
  throw DeviceError(describe(error, call, operation));
}

// After `kernel<<<…>>>`: whether it could be queued. What fails while it runs comes out of a later launch or
// wait.
inline void check_launch(std::string_view operation) {
  check_call(cudaGetLastError(), "kernel launch", operation);
}

}  // namespace tramontane::cuda

// CUDA_CHECK(cudaMalloc(&data, bytes), label);
#define CUDA_CHECK(call, operation) ::tramontane::cuda::check_call((call), #call, (operation))
