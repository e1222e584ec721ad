#include "tests/cuda_emulator/runtime/runtime.h"

#include <cstdio>

#include "tests/cuda_emulator/runtime/device.h"
#include "tests/cuda_emulator/runtime/errors.h"

namespace tramontane::emulator {

const Kernel* Function::kernel() {
  const Kernel* found = module->kernel(name);
  if (!found) throw CallError(cudaErrorInvalidDeviceFunction, "no kernel " + name);
  return found;
}

u32 Function::registers() {
  constexpr u32 kUsual = 32;
  const u32 known = module->registers(name, options().compute);
  return known ? known : kUsual;
}

std::size_t Function::max_dynamic_shared() {
  if (asked_dynamic_shared) return static_cast<std::size_t>(*asked_dynamic_shared);
  return device_properties().sharedMemPerBlock - kernel()->static_shared;
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

void fail_on_purpose(cudaError_t error, const std::string& what) {
  if (ends_context(error)) throw Fault(error, what);
  throw CallError(error, what);
}

void Runtime::inject(const char* call) {
  Options& o = options();
  if (o.driver < kRuntimeVersion)
    refuse(cudaErrorInsufficientDriver, "the driver knows CUDA " + std::to_string(o.driver));
  if (o.devices == 0) refuse(cudaErrorNoDevice, "there is no device");
  if (o.fail_call.strikes_call(call))
    fail_on_purpose(o.fail_call.error, std::string(call) + " fails as FAIL_CALL asks");
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
