// Kernels that differ in what a block of them takes.
#include "tests/cuda_emulator/kernels/kernels.h"

namespace emulator_kernels {
namespace {

__global__ void thrifty_kernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}

__global__ void __launch_bounds__(96) bounded_kernel(const float* x, float* y) {
  y[threadIdx.x] = x[threadIdx.x];
}

// Every value is needed once more after the last one was.
template <int kValues>
__global__ void registers_kernel(const float* x, float* y) {
  float values[kValues], sum = 0;
#pragma unroll
  for (int i = 0; i < kValues; ++i) values[i] = x[i];
#pragma unroll
  for (int i = 0; i < kValues; ++i) sum = sum * values[i] + 1;
#pragma unroll
  for (int i = kValues - 1; i >= 0; --i) sum = sum * values[i] + 1;
  y[threadIdx.x] = sum;
}

__global__ void static_shared_kernel(const float* x, float* y) {
  __shared__ float values[5000];
  for (int i = threadIdx.x; i < 5000; i += blockDim.x) values[i] = x[i];
  __syncthreads();
  y[threadIdx.x] = values[4999 - threadIdx.x];
}

}  // namespace

Resources::Kernel Resources::thrifty = reinterpret_cast<const void*>(thrifty_kernel);
Resources::Kernel Resources::bounded = reinterpret_cast<const void*>(bounded_kernel);
Resources::Kernel Resources::many_registers = reinterpret_cast<const void*>(registers_kernel<100>);
Resources::Kernel Resources::some_registers = reinterpret_cast<const void*>(registers_kernel<63>);
Resources::Kernel Resources::static_shared = reinterpret_cast<const void*>(static_shared_kernel);

cudaError_t Resources::launch(Kernel kernel, const float* x, float* y, int threads,
                              std::size_t dynamic_shared) {
  void* arguments[] = {&x, &y};
  return cudaLaunchKernel(kernel, dim3(1), dim3(threads), arguments, dynamic_shared, nullptr);
}

}  // namespace emulator_kernels
