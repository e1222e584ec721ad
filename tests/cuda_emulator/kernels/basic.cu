// Plain kernels as programs have them: control flow, reductions, atomics, calls, barriers.

#include "tests/cuda_emulator/kernels/kernels.h"

namespace emulator_kernels {
namespace {

constexpr unsigned kAll = 0xffffffffu;

__global__ void saxpy_kernel(int n, float a, const float* __restrict__ x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = a * x[i] + y[i];
}

__global__ void block_sum_kernel(const float* x, float* sum, int n) {
  __shared__ float partial[32];
  float s = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) s += x[i];
  for (int o = 16; o; o >>= 1) s += __shfl_xor_sync(kAll, s, o);
  if ((threadIdx.x & 31) == 0) partial[threadIdx.x >> 5] = s;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  s = threadIdx.x < (blockDim.x >> 5) ? partial[threadIdx.x] : 0.0f;
  for (int o = 16; o; o >>= 1) s += __shfl_down_sync(kAll, s, o);
  if (threadIdx.x == 0) atomicAdd(sum, s);
}

__global__ void collatz_kernel(int* steps, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  unsigned v = i + 1;
  int count = 0;
  while (v != 1) {
    if (v & 1)
      v = 3 * v + 1;
    else
      v >>= 1;
    ++count;
  }
  steps[i] = count;
}

__device__ float over_block(float v, bool is_max, float* shared) {
  for (int o = 16; o; o >>= 1) {
    const float other = __shfl_xor_sync(kAll, v, o);
    v = is_max ? fmaxf(v, other) : v + other;
  }
  __syncthreads();
  if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = v;
  __syncthreads();
  v = shared[0];
  for (int w = 1; w < blockDim.x >> 5; ++w) v = is_max ? fmaxf(v, shared[w]) : v + shared[w];
  return v;
}

__global__ void softmax_kernel(const float* x, float* y, int n) {
  __shared__ float shared[32];
  const float* row = x + (size_t)blockIdx.x * n;
  float most = -INFINITY, sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) most = fmaxf(most, row[i]);
  most = over_block(most, true, shared);
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += expf(row[i] - most);
  sum = over_block(sum, false, shared);
  for (int i = threadIdx.x; i < n; i += blockDim.x)
    y[(size_t)blockIdx.x * n + i] = __expf(row[i] - most) / sum;
}

__global__ void histogram_kernel(const uint8_t* x, unsigned* counts, int n) {
  __shared__ unsigned local[256];
  local[threadIdx.x] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    atomicAdd(&local[x[i]], 1u);
  __syncthreads();
  atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

__global__ void max_kernel(const int* x, int* result, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicMax(result, x[i]);
}

__global__ void add_one_kernel(int* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += 1;
}

// As add_one_kernel, where a launch may begin before the one ahead of it has ended.
__global__ void add_one_early_kernel(int* x, int n) {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] += 1;
}

__constant__ float scale[2] = {1.0f, 0.5f};
__device__ float offset = 3.0f;

__global__ void scale_kernel(const float* x, float* y, int n) {
  const int i = threadIdx.x;
  if (i < n) y[i] = x[i] * scale[i & 1] + offset;
}

__global__ void choose_kernel(const int* which, float* x, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  switch (which[i]) {
    case 0:
      x[i] = x[i] + 1;
      break;
    case 1:
      x[i] = x[i] * 3;
      break;
    case 2:
      x[i] = sqrtf(x[i]);
      break;
    case 3:
      x[i] = -x[i];
      break;
    case 4:
      x[i] = x[i] * x[i];
      break;
    case 5:
      x[i] = 1 / x[i];
      break;
    case 6:
      x[i] = floorf(x[i] / 2);
      break;
    default:
      x[i] = 100;
      break;
  }
}

__device__ __noinline__ float sum_of_powers(float x, int n) {
  float s = 0, p = 1;
  for (int i = 0; i < n; ++i) s += p, p *= x;
  return s;
}
__device__ __noinline__ float piecewise(float x) {
  if (x < 0) return -x;
  return sum_of_powers(x, 3) + 1;
}

__global__ void call_kernel(const float* x, float* y, int n) {
  const int i = threadIdx.x;
  if (i < n) y[i] = piecewise(x[i]) + sum_of_powers(x[i], i & 3);
}

struct Table {
  int values[16];
};
__global__ void struct_kernel(Table table, const int* index, int* out, int n) {
  const int i = threadIdx.x;
  if (i < n) out[i] = table.values[index[i]];
}

__global__ void transpose_kernel(const float* x, float* y, int n) {
  __shared__ float tile[32][33];
  for (int r = threadIdx.y; r < 32; r += blockDim.y)
    tile[r][threadIdx.x] = x[(blockIdx.y * 32 + r) * n + blockIdx.x * 32 + threadIdx.x];
  __syncthreads();
  for (int r = threadIdx.y; r < 32; r += blockDim.y)
    y[(blockIdx.x * 32 + r) * n + blockIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][r];
}

__global__ void warp_queries_kernel(const int* x, unsigned* out) {
  const int lane = threadIdx.x, v = x[lane];
  unsigned* mine = out + lane * 8;
  mine[0] = __ballot_sync(kAll, v & 1);
  mine[1] = __any_sync(kAll, v == 5) | __all_sync(kAll, v < 1000) << 1;
  mine[2] = __match_any_sync(kAll, v % 3);
  mine[3] = __reduce_add_sync(kAll, v);
  mine[4] = __reduce_max_sync(kAll, v);
  mine[5] = __shfl_up_sync(kAll, v, 3, 16);
  mine[6] = __shfl_sync(kAll, v, lane + 5, 8);
  mine[7] = 0;
  if (v & 1) mine[7] = __activemask();
}

__global__ void barrier_reductions_kernel(const int* x, int* out) {
  const int v = x[threadIdx.x];
  const int count = __syncthreads_count(v > 0), all = __syncthreads_and(v > -100),
            any = __syncthreads_or(v > 1000);
  out[threadIdx.x] = count * 4 + (all != 0) * 2 + (any != 0);
}

__global__ void wide_sum_kernel(const uint64_t* a, const uint64_t* b, uint64_t* sum, int n) {
  const int i = threadIdx.x;
  if (i >= n) return;
  uint64_t low, high;
  asm("add.cc.u64 %0, %2, %3; addc.u64 %1, %4, %5;"
      : "=l"(low), "=l"(high)
      : "l"(a[2 * i]), "l"(b[2 * i]), "l"(a[2 * i + 1]), "l"(b[2 * i + 1]));
  sum[2 * i] = low;
  sum[2 * i + 1] = high;
}

__global__ void last_block_kernel(const float* x, float* partial, unsigned* counter, float* sum) {
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = x[blockIdx.x] * 2;
    __threadfence();
    is_last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last || threadIdx.x) return;
  float s = 0;
  for (int b = 0; b < gridDim.x; ++b) s += partial[b];
  *sum = s;
}

// Warp 0 writes, warp 1 reads, one slot; "full" is barrier 1, "empty" barrier 2.
__global__ void producer_consumer_kernel(const int* x, int* y, int rounds) {
  __shared__ int slot[32];
  const int lane = threadIdx.x & 31;
  for (int r = 0; r < rounds; ++r) {
    if (threadIdx.x < 32) {
      if (r) asm volatile("bar.sync 2, 64;" ::: "memory");
      slot[lane] = x[r * 32 + lane];
      asm volatile("bar.arrive 1, 64;" ::: "memory");
    } else {
      asm volatile("bar.sync 1, 64;" ::: "memory");
      y[r * 32 + lane] = slot[lane] * 10;
      if (r + 1 < rounds) asm volatile("bar.arrive 2, 64;" ::: "memory");
    }
  }
}

__global__ void spin_kernel(volatile int* out) {
  if (threadIdx.x == 0) {
    while (out[0] == 0) {
    }
    out[1] = 7;
  } else if (threadIdx.x == 32) {
    out[0] = 1;
  }
}

int blocks(int n, int threads) {
  return (n + threads - 1) / threads;
}

}  // namespace

void saxpy(int n, float a, const float* x, float* y, cudaStream_t stream) {
  saxpy_kernel<<<blocks(n, 256), 256, 0, stream>>>(n, a, x, y);
}
void block_sum(const float* x, float* sum, int n) {
  block_sum_kernel<<<8, 256>>>(x, sum, n);
}
void collatz_steps(int* steps, int n) {
  collatz_kernel<<<blocks(n, 128), 128>>>(steps, n);
}
void softmax_rows(const float* x, float* y, int rows, int n) {
  softmax_kernel<<<rows, 256>>>(x, y, n);
}
void histogram(const uint8_t* x, unsigned* counts, int n) {
  histogram_kernel<<<4, 256>>>(x, counts, n);
}
void max_of(const int* x, int* result, int n) {
  max_kernel<<<blocks(n, 64), 64>>>(x, result, n);
}
void add_one(int* x, int n, cudaStream_t stream) {
  add_one_kernel<<<blocks(n, 64), 64, 0, stream>>>(x, n);
}
cudaError_t add_one_early(int* x, int n, cudaStream_t stream) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks(n, 64));
  config.blockDim = dim3(64);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, add_one_early_kernel, x, n);
}
void scale_by_constant(const float* x, float* y, int n) {
  scale_kernel<<<1, 64>>>(x, y, n);
}
void set_scale(float value) {
  cudaMemcpyToSymbol(scale, &value, sizeof value);
}
void choose(const int* which, float* x, int n) {
  choose_kernel<<<1, 64>>>(which, x, n);
}
void call_functions(const float* x, float* y, int n) {
  call_kernel<<<1, 64>>>(x, y, n);
}
void struct_parameter(const int* index, int* out, int n) {
  Table table;
  for (int k = 0; k < 16; ++k) table.values[k] = k * k;
  struct_kernel<<<1, 32>>>(table, index, out, n);
}
void transpose(const float* x, float* y, int n) {
  transpose_kernel<<<dim3(n / 32, n / 32), dim3(32, 8)>>>(x, y, n);
}
void warp_queries(const int* x, unsigned* out) {
  warp_queries_kernel<<<1, 32>>>(x, out);
}
void barrier_reductions(const int* x, int* out, int threads) {
  barrier_reductions_kernel<<<1, threads>>>(x, out);
}
void wide_sum(const uint64_t* a, const uint64_t* b, uint64_t* sum, int n) {
  wide_sum_kernel<<<1, 64>>>(a, b, sum, n);
}
void last_block_sum(const float* x, float* partial, unsigned* counter, float* sum, int count) {
  last_block_kernel<<<count, 32>>>(x, partial, counter, sum);
}
void producer_consumer(const int* x, int* y, int rounds) {
  producer_consumer_kernel<<<1, 64>>>(x, y, rounds);
}
void spin_between_warps(int* out) {
  spin_kernel<<<1, 64>>>(out);
}

}  // namespace emulator_kernels
