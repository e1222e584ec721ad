// What nvcc's host code calls at program start and for <<<>>>.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/cuda_emulator/fatbin.h"
#include "tests/cuda_emulator/runtime/launch.h"
#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {
namespace {

struct CallConfiguration {
  dim3 grid, block;
  std::size_t shared;
  void* stream;
};

std::vector<CallConfiguration>& configurations() {
  static thread_local std::vector<CallConfiguration> stack;
  return stack;
}

// Of several, the newest that the device runs. One too old for all of them refuses launches, not programs.
const PtxImage* choose(const std::vector<PtxImage>& images) {
  const u32 architecture = std::max(options().compute, 80u);
  const PtxImage* best = nullptr;
  for (const PtxImage& image : images)
    if (image.target <= architecture && (!best || image.target > best->target)) best = &image;
  return best;
}

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "PTX emulator: %s\n", why.c_str());
  std::abort();
}

Module* register_module(const void* wrapper) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  try {
    const std::vector<PtxImage> images = ptx_of(wrapper);
    const PtxImage* image = choose(images);
    if (!image)
      give_up(
          "a fat binary has no PTX that the device runs; compile with -gencode "
          "arch=compute_80,code=compute_80");
    runtime.modules.push_back(std::make_unique<Module>(image->text, wrapper));
    return runtime.modules.back().get();
  } catch (const std::exception& error) {
    give_up(error.what());
  }
}

Dim dim(const dim3& d) {
  return {d.x, d.y, d.z};
}

}  // namespace
}  // namespace tramontane::emulator

using namespace tramontane::emulator;

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(register_module(wrapper));
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) {
  return 0;
}

void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  runtime.functions[stub] = {reinterpret_cast<Module*>(handle), name};
}

void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, std::size_t, int, int) {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  runtime.variables[host] = {reinterpret_cast<Module*>(handle), name};
}

void __cudaRegisterManagedVar(void**, void**, char*, const char* name, std::size_t, int, int) {
  give_up(std::string("__managed__ variable ") + name + " is not supported");
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t shared, void* stream) {
  configurations().push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* shared, void* stream) {
  if (configurations().empty()) return cudaErrorMissingConfiguration;
  const CallConfiguration top = configurations().back();
  configurations().pop_back();
  *grid = top.grid;
  *block = top.block;
  *shared = top.shared;
  *static_cast<void**>(stream) = top.stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  return api([&](Runtime& runtime) { *kernel = reinterpret_cast<cudaKernel_t>(&runtime.function(stub)); });
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               std::size_t shared, cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    launch_kernel(runtime, *reinterpret_cast<Function*>(kernel), dim(grid), dim(block), arguments, shared,
                  stream);
  });
}

cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments, std::size_t shared,
                             cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    launch_kernel(runtime, runtime.function(stub), dim(grid), dim(block), arguments, shared, stream);
  });
}

// Attributes that only change when work may overlap are taken; it never does here.
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub, void** arguments) {
  return api([&](Runtime& runtime) {
    for (unsigned k = 0; k < config->numAttrs; ++k) {
      const cudaLaunchAttributeID id = config->attrs[k].id;
      const bool harmless = id == cudaLaunchAttributeProgrammaticStreamSerialization ||
                            id == cudaLaunchAttributePriority || id == cudaLaunchAttributeIgnore ||
                            id == cudaLaunchAttributeAccessPolicyWindow;
      require(harmless, "launch attribute " + std::to_string(static_cast<int>(id)) + " is not supported",
              cudaErrorNotSupported);
    }
    launch_kernel(runtime, runtime.function(stub), dim(config->gridDim), dim(config->blockDim), arguments,
                  config->dynamicSmemBytes, config->stream);
  });
}

}  // extern "C"
