// Kernels broken on purpose, one fault each, and the legal ones that lie close to them.
#include <cassert>

#include "tests/cuda_emulator/kernels/kernels.h"

namespace emulator_kernels {
namespace {

__global__ void out_of_bounds_kernel(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) y[i % n] = x[i];
}
__global__ void misaligned_kernel(const float* x, float* y) {
  const float4 v = *(const float4*)(x + 1 + threadIdx.x * 4);
  y[threadIdx.x] = v.x + v.y * v.z + v.w;
}
__global__ void copy_kernel(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i];
}
__global__ void shared_out_of_bounds_kernel(float* y) {
  extern __shared__ float s[];
  s[threadIdx.x + 1] = 1;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}

// Initialised first, so that only the missing barrier is at fault.
__global__ void race_between_warps_kernel(const float* x, float* y) {
  __shared__ float s[256];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[255 - threadIdx.x];
}
__global__ void race_write_after_read_kernel(const float* x, float* y) {
  __shared__ float s[256];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  const float v = s[255 - threadIdx.x];
  s[threadIdx.x] = v + 1;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
template <bool kSync>
__global__ void in_warp_kernel(const float* x, float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = 0;
  __syncwarp();
  s[threadIdx.x] = x[threadIdx.x];
  if (kSync) __syncwarp();
  y[threadIdx.x] = s[31 - threadIdx.x];
}
// The last of 16 blocks adds what the others wrote.
template <Publish kHow>
__global__ void between_blocks_kernel(const float* x, float* partial, unsigned* counter, float* sum) {
  if (kHow == Publish::kTooEarly) __threadfence();
  partial[blockIdx.x] = x[blockIdx.x];
  unsigned arrived = 0;
  if (kHow == Publish::kRelease) {
    asm volatile("atom.global.acq_rel.gpu.inc.u32 %0, [%1], %2;"
                 : "=r"(arrived)
                 : "l"(counter), "r"(gridDim.x - 1)
                 : "memory");
  } else {
    if (kHow == Publish::kFence) __threadfence();
    arrived = atomicInc(counter, gridDim.x - 1);
  }
  if (kHow == Publish::kTooLate) __threadfence();
  if (arrived != gridDim.x - 1) return;
  float s = 0;
  for (int b = 0; b < gridDim.x; ++b) s += partial[b];
  *sum = s;
}
// Two pairs of warps, each with a barrier of its own: the pairs do not wait for each other.
__global__ void wrong_named_barrier_kernel(const float* x, float* y) {
  __shared__ float s[128];
  s[threadIdx.x] = 0;
  __syncthreads();
  s[threadIdx.x] = x[threadIdx.x];
  asm volatile("bar.sync %0, 64;" ::"r"(1 + threadIdx.x / 64) : "memory");
  y[threadIdx.x] = s[127 - threadIdx.x];
}
// The next stage's copy begins before all have read the last one.
__global__ void stage_overwritten_kernel(const float* x, float* y) {
  __shared__ __align__(16) float s[256];
  const unsigned to = (unsigned)__cvta_generic_to_shared(&s[threadIdx.x * 4]);
  float sum = 0;
  for (int t = 0; t < 2; ++t) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(x + t * 256 + threadIdx.x * 4));
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();
    sum += s[255 - threadIdx.x];
  }
  y[threadIdx.x] = sum;
}

__global__ void divergent_barrier_kernel(float* y) {
  if (threadIdx.x < 16) __syncthreads();
  y[threadIdx.x] = 1;
}
__global__ void early_exit_kernel(float* y, int n) {
  if (threadIdx.x >= n) return;
  __syncthreads();
  y[threadIdx.x] = 1;
}
__global__ void unequal_barriers_kernel(float* y) {
  if (threadIdx.x < 32) {
    y[threadIdx.x] = 2;
    __syncthreads();
  }
  y[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] += 1;
  __syncthreads();
}
__global__ void missing_barrier_kernel(float* y) {
  if (threadIdx.x < 32) asm volatile("bar.sync 1, 64;" ::: "memory");
  y[threadIdx.x] = 1;
}
__global__ void absent_lane_kernel(float* y) {
  float v = threadIdx.x;
  if (threadIdx.x < 16) v += __shfl_xor_sync(0xffffffffu, v, 1);
  y[threadIdx.x] = v;
}
__global__ void unwritten_shared_kernel(float* y) {
  __shared__ float s[64];
  if (threadIdx.x) s[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];
}
__global__ void missing_copy_wait_kernel(const float* x, float* y) {
  __shared__ __align__(16) float s[128];
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   (unsigned)__cvta_generic_to_shared(&s[threadIdx.x * 4])),
               "l"(x + threadIdx.x * 4));
  asm volatile("cp.async.commit_group;" ::: "memory");
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x * 4];
  asm volatile("cp.async.wait_all;" ::: "memory");
}
__global__ void unknown_instruction_kernel(double* y) {
  double d0 = 0, d1 = 0;
  asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1},{%2},{%3},{%0,%1};"
               : "+d"(d0), "+d"(d1)
               : "d"(1.0), "d"(2.0));
  y[threadIdx.x] = d0 + d1;
}
__global__ void failing_assert_kernel(int* x) {
  assert(x[threadIdx.x] < 5);
  x[threadIdx.x] = 1;
}
__global__ void endless_loop_kernel(volatile int* x) {
  while (x[0] == 0) {
  }
}
__global__ void barrier_count_kernel(int* x) {
  asm volatile("bar.sync 1, %0;" ::"r"(x[0]) : "memory");
  x[threadIdx.x] = 1;
}

}  // namespace

void out_of_bounds(const float* x, float* y, int n) {
  out_of_bounds_kernel<<<n / 256 + 1, 256>>>(x, y, n);
}
void misaligned(const float* x, float* y) {
  misaligned_kernel<<<1, 32>>>(x, y);
}
void plain_copy(const float* x, float* y, int n) {
  copy_kernel<<<(n + 255) / 256, 256>>>(x, y, n);
}
void shared_out_of_bounds(float* y) {
  shared_out_of_bounds_kernel<<<1, 64, 256>>>(y);
}
void race_between_warps(const float* x, float* y) {
  race_between_warps_kernel<<<1, 256>>>(x, y);
}
void race_write_after_read(const float* x, float* y) {
  race_write_after_read_kernel<<<1, 256>>>(x, y);
}
void race_in_warp(const float* x, float* y) {
  in_warp_kernel<false><<<1, 32>>>(x, y);
}
void fine_in_warp(const float* x, float* y) {
  in_warp_kernel<true><<<1, 32>>>(x, y);
}
void race_wrong_named_barrier(const float* x, float* y) {
  wrong_named_barrier_kernel<<<1, 128>>>(x, y);
}
void race_stage_overwritten(const float* x, float* y) {
  stage_overwritten_kernel<<<1, 64>>>(x, y);
}
void divergent_barrier(float* y) {
  divergent_barrier_kernel<<<1, 64>>>(y);
}
void fine_early_exit(float* y, int n) {
  early_exit_kernel<<<1, 64>>>(y, n);
}
void unequal_barriers(float* y) {
  unequal_barriers_kernel<<<1, 64>>>(y);
}
void race_between_blocks(Publish how, const float* x, float* partial, unsigned* counter, float* sum) {
  if (how == Publish::kNothing) between_blocks_kernel<Publish::kNothing><<<16, 1>>>(x, partial, counter, sum);
  if (how == Publish::kTooEarly)
    between_blocks_kernel<Publish::kTooEarly><<<16, 1>>>(x, partial, counter, sum);
  if (how == Publish::kTooLate) between_blocks_kernel<Publish::kTooLate><<<16, 1>>>(x, partial, counter, sum);
  if (how == Publish::kFence) between_blocks_kernel<Publish::kFence><<<16, 1>>>(x, partial, counter, sum);
  if (how == Publish::kRelease) between_blocks_kernel<Publish::kRelease><<<16, 1>>>(x, partial, counter, sum);
}
void missing_barrier_in_warp(float* y) {
  missing_barrier_kernel<<<1, 64>>>(y);
}
void absent_lane(float* y) {
  absent_lane_kernel<<<1, 32>>>(y);
}
void unwritten_shared(float* y) {
  unwritten_shared_kernel<<<1, 64>>>(y);
}
void missing_copy_wait(const float* x, float* y) {
  missing_copy_wait_kernel<<<1, 32>>>(x, y);
}
void unknown_instruction(double* y) {
  unknown_instruction_kernel<<<1, 32>>>(y);
}
void failing_assert(int* x) {
  failing_assert_kernel<<<1, 32>>>(x);
}
void endless_loop(int* x) {
  endless_loop_kernel<<<1, 32>>>(x);
}
void divide_barrier_count(int* x) {
  barrier_count_kernel<<<1, 32>>>(x);
}

}  // namespace emulator_kernels
