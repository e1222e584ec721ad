#include "tests/cuda_emulator/runtime/launch.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <utility>

#include "tests/cuda_emulator/executor.h"
#include "tests/cuda_emulator/runtime/device.h"
#include "tests/cuda_emulator/runtime/occupancy.h"

namespace tramontane::emulator {
namespace {

constexpr u32 kOldestCompute = 80;

std::string text(const Dim& d) {
  return std::to_string(d.x) + "x" + std::to_string(d.y) + "x" + std::to_string(d.z);
}

void check(Function& function, const Kernel& kernel, Dim grid, Dim block, std::size_t dynamic_shared) {
  const cudaDeviceProp& device = device_properties();
  const auto fits = [](u32 value, int most) { return value > 0 && value <= static_cast<u32>(most); };
  require(fits(grid.x, device.maxGridSize[0]) && fits(grid.y, device.maxGridSize[1]) &&
              fits(grid.z, device.maxGridSize[2]),
          kernel.name + ": grid " + text(grid) + " is not possible", cudaErrorInvalidConfiguration);
  require(fits(block.x, device.maxThreadsDim[0]) && fits(block.y, device.maxThreadsDim[1]) &&
              fits(block.z, device.maxThreadsDim[2]) &&
              block.volume() <= static_cast<u64>(device.maxThreadsPerBlock),
          kernel.name + ": block " + text(block) + " is not possible", cudaErrorInvalidConfiguration);
  require(block.volume() <= kernel.max_threads,
          kernel.name + ": block " + text(block) + " is larger than its __launch_bounds__",
          cudaErrorInvalidValue);
  require(block.volume() <= static_cast<u64>(most_threads(function)),
          kernel.name + ": " + std::to_string(function.registers()) + " registers are too many for a block " +
              text(block),
          cudaErrorLaunchOutOfResources);
  require(
      dynamic_shared <= function.max_dynamic_shared() &&
          kernel.static_shared + dynamic_shared <= device.sharedMemPerBlockOptin,
      kernel.name + ": " + std::to_string(dynamic_shared) + " bytes of dynamic shared memory, allowed are " +
          std::to_string(function.max_dynamic_shared()) + " (cudaFuncAttributeMaxDynamicSharedMemorySize)");
}

}  // namespace

void launch_kernel(Runtime& runtime, Function& function, Dim grid, Dim block, void** arguments,
                   std::size_t dynamic_shared, cudaStream_t stream) {
  const Kernel* kernel = function.kernel();
  require(options().compute >= kOldestCompute, kernel->name + ": its PTX is for a newer device",
          cudaErrorNoKernelImageForDevice);
  const std::string name = demangled(kernel->name);
  if (options().fail_launch.strikes_kernel(name))
    fail_on_purpose(options().fail_launch.error, "the launch of " + name + " fails as FAIL_LAUNCH asks");
  check(function, *kernel, grid, block, dynamic_shared);
  if (!std::exchange(function.is_loaded, true)) ++runtime.late_loads;
  Launch launch{
      kernel, grid, block, static_cast<u32>(dynamic_shared), std::vector<u8>(kernel->parameter_bytes), 0};
  for (std::size_t k = 0; k < kernel->parameters.size(); ++k)
    std::memcpy(launch.parameters.data() + kernel->parameters[k].offset, arguments[k],
                kernel->parameters[k].bytes);
  runtime.streams.submit(runtime.streams.get(stream), [&runtime, name, launch = std::move(launch)] {
    if (options().fail_run.strikes_kernel(name))
      throw Fault(options().fail_run.error, name + " fails as FAIL_RUN asks");
    Launch now = launch;  // a graph launches it many times
    now.id = ++runtime.launches;
    run_launch(now);
  });
}

}  // namespace tramontane::emulator
