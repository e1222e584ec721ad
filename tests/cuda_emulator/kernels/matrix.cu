// Tensor cores and what feeds them: mma.sync, ldmatrix, cp.async, and a 4-bit matrix-vector product.
#include "tests/cuda_emulator/kernels/kernels.h"

namespace emulator_kernels {
namespace {

__device__ unsigned shared_address(const void* p) {
  return (unsigned)__cvta_generic_to_shared(p);
}

__device__ void copy_16(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from));
}

__device__ void load_matrix_x4(uint32_t (&r)[4], const void* p) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(p)));
}

__device__ void mma_bf16_k16(float (&c)[4], const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ void mma_half_k16(float (&c)[4], const uint32_t* a, const uint32_t* b) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ void mma_bf16_k8(float (&c)[4], const uint32_t* a, const uint32_t* b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}
__device__ void mma_half_k8(float (&c)[4], const uint32_t* a, const uint32_t* b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b[0]));
}

constexpr int kTileM = 64, kTileN = 64, kTileK = 32, kPitch = kTileK + 8, kStages = 2;

// Tile of 64 x 64 x 32, four warps of 32 x 32, two stages of cp.async.
__global__ void __launch_bounds__(128)
    gemm_kernel(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
  extern __shared__ __align__(16) __nv_bfloat16 shared[];
  __nv_bfloat16* tile_a = shared;
  __nv_bfloat16* tile_b = shared + kStages * kTileM * kPitch;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int warp_m = (warp & 1) * 32, warp_n = (warp >> 1) * 32;
  const int block_m = blockIdx.y * kTileM, block_n = blockIdx.x * kTileN;
  float sum[2][4][4] = {};
  auto load = [&](int stage, int k0) {
    for (int i = threadIdx.x; i < kTileM * kTileK / 8; i += 128) {
      const int row = i / (kTileK / 8), column = i % (kTileK / 8) * 8;
      copy_16(&tile_a[(stage * kTileM + row) * kPitch + column],
              &a[(size_t)(block_m + row) * k + k0 + column]);
      copy_16(&tile_b[(stage * kTileN + row) * kPitch + column],
              &b[(size_t)(block_n + row) * k + k0 + column]);
    }
    asm volatile("cp.async.commit_group;");
  };
  load(0, 0);
  for (int t = 0; t < k / kTileK; ++t) {
    if ((t + 1) * kTileK < k) {
      load((t + 1) % kStages, (t + 1) * kTileK);
      asm volatile("cp.async.wait_group 1;");
    } else {
      asm volatile("cp.async.wait_group 0;");
    }
    __syncthreads();
    const int stage = t % kStages;
    for (int kk = 0; kk < kTileK; kk += 16) {
      uint32_t fa[2][4], fb[4][2];
      for (int i = 0; i < 2; ++i)
        load_matrix_x4(
            fa[i], &tile_a[(stage * kTileM + warp_m + i * 16 + (lane & 15)) * kPitch + kk + (lane >> 4) * 8]);
      for (int j = 0; j < 2; ++j) {
        uint32_t r[4];
        load_matrix_x4(
            r, &tile_b[(stage * kTileN + warp_n + j * 16 + (lane & 7) + ((lane >> 4) << 3)) * kPitch + kk +
                       ((lane >> 3) & 1) * 8]);
        fb[2 * j][0] = r[0], fb[2 * j][1] = r[1], fb[2 * j + 1][0] = r[2], fb[2 * j + 1][1] = r[3];
      }
      for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 4; ++j) mma_bf16_k16(sum[i][j], fa[i], fb[j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 4; ++j) {
      const int row = block_m + warp_m + i * 16 + (lane >> 2),
                column = block_n + warp_n + j * 8 + (lane & 3) * 2;
      *(float2*)&c[(size_t)row * n + column] = make_float2(sum[i][j][0], sum[i][j][1]);
      *(float2*)&c[(size_t)(row + 8) * n + column] = make_float2(sum[i][j][2], sum[i][j][3]);
    }
}

// bitsandbytes' FP4 values by code.
__constant__ float fp4_values[16] = {
    0.0f,  0.0052083333f,  0.66666667f,  1.0f,  0.33333333f,  0.5f,  0.16666667f,  0.25f,
    -0.0f, -0.0052083333f, -0.66666667f, -1.0f, -0.33333333f, -0.5f, -0.16666667f, -0.25f};

// A warp per row, 32 weights per lane and step; high nibble first, one scale per 64 weights.
__global__ void gemv_fp4_kernel(const uint8_t* w, const float* absmax, const __nv_bfloat16* x,
                                __nv_bfloat16* y, int k) {
  __shared__ float values[16];
  if (threadIdx.x < 16) values[threadIdx.x] = fp4_values[threadIdx.x];
  __syncthreads();
  const int lane = threadIdx.x & 31, row = blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
  float total = 0;
  for (int at = lane * 32; at < k; at += 32 * 32) {
    const uint4 q = *(const uint4*)(w + ((size_t)row * k + at) / 2);
    const uint32_t words[4] = {q.x, q.y, q.z, q.w};
    float sum = 0;
    for (int u = 0; u < 4; ++u)
      for (int j = 0; j < 4; ++j) {
        const uint32_t byte = words[u] >> (8 * j) & 255;
        const __nv_bfloat162 pair = *(const __nv_bfloat162*)(x + at + u * 8 + 2 * j);
        sum += values[byte >> 4] * __low2float(pair) + values[byte & 15] * __high2float(pair);
      }
    total += sum * absmax[((size_t)row * k + at) / 64];
  }
  for (int o = 16; o; o >>= 1) total += __shfl_xor_sync(0xffffffffu, total, o);
  if (lane == 0) y[row] = __float2bfloat16(total);
}

// Fragments gathered as the PTX manual draws them.
__global__ void mma_kernel(int form, const uint16_t* a, const uint16_t* b, const float* c, float* d) {
  const int lane = threadIdx.x, group = lane >> 2, position = lane & 3;
  const int depth = form == kBf16K16 || form == kHalfK16 ? 16 : 8;
  auto pair = [&](const uint16_t* m, int row, int column) {
    return m[row * depth + column] | (uint32_t)m[row * depth + column + 1] << 16;
  };
  uint32_t fa[4] = {}, fb[2] = {};
  for (int r = 0; r < depth / 4; ++r) fa[r] = pair(a, group + (r & 1) * 8, position * 2 + (r >> 1) * 8);
  for (int r = 0; r < depth / 8; ++r) fb[r] = pair(b, group, position * 2 + r * 8);
  float sum[4];
  for (int r = 0; r < 4; ++r) sum[r] = c[(group + (r >> 1) * 8) * 8 + position * 2 + (r & 1)];
  if (form == kBf16K16) mma_bf16_k16(sum, fa, fb);
  if (form == kHalfK16) mma_half_k16(sum, fa, fb);
  if (form == kBf16K8) mma_bf16_k8(sum, fa, fb);
  if (form == kHalfK8) mma_half_k8(sum, fa, fb);
  for (int r = 0; r < 4; ++r) d[(group + (r >> 1) * 8) * 8 + position * 2 + (r & 1)] = sum[r];
}

__global__ void ldmatrix_kernel(const uint16_t* x, uint32_t* out) {
  __shared__ __align__(16) uint16_t tile[64];
  tile[threadIdx.x] = x[threadIdx.x];
  tile[threadIdx.x + 32] = x[threadIdx.x + 32];
  __syncwarp();
  uint32_t r;
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r)
               : "r"(shared_address(&tile[threadIdx.x % 8 * 8])));
  out[threadIdx.x] = r;
}

__global__ void zero_fill_kernel(const uint8_t* x, uint8_t* y, int source_bytes) {
  __shared__ __align__(16) uint8_t tile[16 * 32];
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(tile + threadIdx.x * 16)),
               "l"(x + threadIdx.x * 16), "r"(source_bytes));
  asm volatile("cp.async.wait_all;");
  __syncwarp();
  for (int i = threadIdx.x; i < 16 * 32; i += 32) y[i] = tile[i];
}

}  // namespace

void gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
  const int shared = kStages * (kTileM + kTileN) * kPitch * 2;
  gemm_kernel<<<dim3(n / kTileN, m / kTileM), 128, shared>>>(a, b, c, n, k);
}
void gemv_fp4(const uint8_t* w, const float* absmax, const __nv_bfloat16* x, __nv_bfloat16* y, int rows,
              int k) {
  gemv_fp4_kernel<<<rows / 4, 128>>>(w, absmax, x, y, k);
}
void mma_once(int form, const uint16_t* a, const uint16_t* b, const float* c, float* d) {
  mma_kernel<<<1, 32>>>(form, a, b, c, d);
}
void ldmatrix_transposed(const uint16_t* x, uint32_t* out) {
  ldmatrix_kernel<<<1, 32>>>(x, out);
}
void copy_with_zero_fill(const uint8_t* x, uint8_t* y, int source_bytes) {
  zero_fill_kernel<<<1, 32>>>(x, y, source_bytes);
}

}  // namespace emulator_kernels
