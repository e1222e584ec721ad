#include "tests/cuda_emulator/runtime/runtime.h"

#include <cstdio>

namespace tramontane::emulator {

const Kernel* Function::kernel() {
  const Kernel* found = module->kernel(name);
  if (!found) throw CallError(cudaErrorInvalidDeviceFunction, "no kernel " + name);
  return found;
}

Runtime& Runtime::instance() {
  // Never destroyed: programs call the runtime in static destructors.
  static auto* runtime = [] {
    std::fputs("PTX emulator: CUDA runs on this machine's processor, not on a GPU\n", stderr);
    return new Runtime;
  }();
  return *runtime;
}

void Runtime::fail(const Fault& fault) {
  report = fault.what();
  sticky = fault.error;
  std::fprintf(stderr, "PTX emulator: %s\n", fault.what());
  streams.abandon();
}

Function& Runtime::function(const void* stub) {
  const auto it = functions.find(stub);
  require(it != functions.end(), "no __global__ function is registered at this address",
          cudaErrorInvalidDeviceFunction);
  return it->second;
}

u64 Runtime::variable_address(const void* symbol, u64* bytes) {
  const auto it = variables.find(symbol);
  require(it != variables.end(), "no device variable is registered at this address", cudaErrorInvalidSymbol);
  const GlobalVariable* variable = it->second.module->variable(it->second.name);
  require(variable != nullptr, "no device variable " + it->second.name, cudaErrorInvalidSymbol);
  if (bytes) *bytes = variable->bytes;
  return variable->address;
}

cudaError_t& last_error() {
  static thread_local cudaError_t error = cudaSuccess;
  return error;
}

}  // namespace tramontane::emulator
