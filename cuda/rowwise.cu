#include <cuda_bf16.h>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"
#include "cuda/rowwise.h"

namespace tramontane::cuda {
namespace {

// 256 threads: one for each lane that a row is summed by (reduce.cuh); two blocks fill half an SM, and what
// matters at one row is only that its loads are all under way at once.
constexpr int kThreads = kRowLanes;

// The row's bytes as its view says, shared by all kernels below.
template <typename T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* at(int64_t row) const { return data + row * stride; }
};
template <typename T>
Rows<T> rows_of(TensorView view) {
  return {view.row<T>(0), view.row_stride};
}

// Whether every row starts at a multiple of 4 elements, so that 4 are one access.
bool whole_quads(const TensorView& view) {
  return view.empty() || (reinterpret_cast<uintptr_t>(view.data) % (4 * size_of(view.dtype)) == 0 &&
                          (view.rows == 1 || view.row_stride % 4 == 0) && view.cols % 4 == 0);
}

__device__ float4 add(float4 a, float4 b) {
  return {__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w)};
}

__device__ void store_bf16(__nv_bfloat16* to, float4 v) {
  *reinterpret_cast<uint2*>(to) = {ptx::pack_bf16x2(v.x, v.y), ptx::pack_bf16x2(v.z, v.w)};
}

// All threads have their share of squares; the row's scale.
__device__ float scale_of_block(float squares, int n, float eps) {
  __shared__ float sums[kRowWarps];
  const float sum = warp_sum(squares);
  if (threadIdx.x % kWarpLanes == 0) sums[threadIdx.x / kWarpLanes] = sum;
  __syncthreads();
  return rms_scale(sums, n, eps);
}

// One block a row. A thread keeps its kQuads x 4 elements in registers, so x, delta and w are read once and
// all loads of a row are in flight together.
template <int kQuads>
__global__ void __launch_bounds__(kThreads)
    add_rmsnorm_kernel(Rows<float> x, Rows<const float> delta, const float* __restrict__ w, float eps, int n,
                       Rows<__nv_bfloat16> y) {
  const int64_t row = blockIdx.x;
  float* x_row = x.at(row);
  const float* delta_row = delta.data != nullptr ? delta.at(row) : nullptr;
  float4 held[kQuads], added[kQuads];
  // All loads come before the first store: the compiler must not move a load above a store that it may see.
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    held[i] = at < n ? *reinterpret_cast<const float4*>(x_row + at) : float4{};
    if (delta_row != nullptr && at < n) added[i] = *reinterpret_cast<const float4*>(delta_row + at);
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at >= n) break;
    if (delta_row != nullptr) {
      held[i] = add(held[i], added[i]);
      *reinterpret_cast<float4*>(x_row + at) = held[i];
    }
    squares = add_squares(squares, held[i]);
  }
  const float scale = scale_of_block(squares, n, eps);
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    const int at = (i * kThreads + static_cast<int>(threadIdx.x)) * 4;
    if (at >= n) break;
    const float4 weight = *reinterpret_cast<const float4*>(w + at);
    store_bf16(y.at(row) + at,
               {normalise(held[i].x, scale, weight.x), normalise(held[i].y, scale, weight.y),
                normalise(held[i].z, scale, weight.z), normalise(held[i].w, scale, weight.w)});
  }
}

// The same for rows of any width and alignment: element by element, x read again from cache.
__global__ void __launch_bounds__(kThreads)
    add_rmsnorm_any_kernel(Rows<float> x, Rows<const float> delta, const float* __restrict__ w, float eps,
                           int n, Rows<__nv_bfloat16> y) {
  const int64_t row = blockIdx.x;
  float* x_row = x.at(row);
  float squares = 0.0f;
  for (int first = static_cast<int>(threadIdx.x) * 4; first < n; first += kThreads * 4) {
    for (int i = first; i < min(first + 4, n); ++i) {
      const float value = delta.data != nullptr ? __fadd_rn(x_row[i], delta.at(row)[i]) : x_row[i];
      x_row[i] = value;
      squares = __fmaf_rn(value, value, squares);
    }
  }
  const float scale = scale_of_block(squares, n, eps);
  for (int first = static_cast<int>(threadIdx.x) * 4; first < n; first += kThreads * 4) {
    for (int i = first; i < min(first + 4, n); ++i)
      y.at(row)[i] = __float2bfloat16_rn(normalise(x_row[i], scale, w[i]));
  }
}

// A thread makes kWidth elements: 4 where rows are aligned, else 1.
template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    silu_mul_kernel(Rows<const float> gate_up, int n, Rows<__nv_bfloat16> y) {
  const int64_t row = blockIdx.x;
  const int at = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * kWidth;
  if (at >= n) return;
  const float* gate = gate_up.at(row) + at;
  const float* up = gate + n;
  if constexpr (kWidth == 4) {
    const float4 g = *reinterpret_cast<const float4*>(gate), u = *reinterpret_cast<const float4*>(up);
    store_bf16(y.at(row) + at,
               {silu_mul(g.x, u.x), silu_mul(g.y, u.y), silu_mul(g.z, u.z), silu_mul(g.w, u.w)});
  } else {
    y.at(row)[at] = __float2bfloat16_rn(silu_mul(*gate, *up));
  }
}

template <typename Word>
__global__ void __launch_bounds__(kThreads)
    gather_rows_kernel(Rows<const float> x, const int32_t* __restrict__ rows, int n_words, Rows<float> y) {
  const int at = static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x);
  if (at >= n_words) return;
  reinterpret_cast<Word*>(y.at(blockIdx.x))[at] = reinterpret_cast<const Word*>(x.at(rows[blockIdx.x]))[at];
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

}  // namespace

void load_rowwise_kernels() {
  for (const auto kernel : {add_rmsnorm_kernel<1>, add_rmsnorm_kernel<2>, add_rmsnorm_kernel<4>,
                            add_rmsnorm_kernel<8>, add_rmsnorm_any_kernel})
    load_kernel(kernel, 0, "add_rmsnorm");
  for (const auto kernel : {silu_mul_kernel<4>, silu_mul_kernel<1>}) load_kernel(kernel, 0, "silu_mul");
  for (const auto kernel : {gather_rows_kernel<float4>, gather_rows_kernel<float>})
    load_kernel(kernel, 0, "gather_rows");
}

void launch_add_rmsnorm(Stream stream, TensorView x, TensorView delta, TensorView w, float eps,
                        TensorView y) {
  if (x.rows == 0) return;
  const auto launch = [&](auto kernel) {
    kernel<<<static_cast<unsigned>(x.rows), kThreads, 0, stream>>>(
        rows_of<float>(x), rows_of<const float>(delta), w.row<const float>(0), eps, static_cast<int>(x.cols),
        rows_of<__nv_bfloat16>(y));
  };
  const bool quads = whole_quads(x) && whole_quads(delta) && whole_quads(w) && whole_quads(y);
  if (quads && x.cols <= kThreads * 4) {
    launch(add_rmsnorm_kernel<1>);
  } else if (quads && x.cols <= kThreads * 8) {
    launch(add_rmsnorm_kernel<2>);
  } else if (quads && x.cols <= kThreads * 16) {
    launch(add_rmsnorm_kernel<4>);
  } else if (quads && x.cols <= kThreads * 32) {
    launch(add_rmsnorm_kernel<8>);
  } else {
    launch(add_rmsnorm_any_kernel);
  }
  check_launch("add_rmsnorm");
}

void launch_silu_mul(Stream stream, TensorView gate_up, TensorView y) {
  if (y.rows == 0) return;
  const auto launch = [&](auto kernel, int width) {
    const dim3 grid(static_cast<unsigned>(y.rows), blocks_for((y.cols + width - 1) / width));
    kernel<<<grid, kThreads, 0, stream>>>(rows_of<const float>(gate_up), static_cast<int>(y.cols),
                                          rows_of<__nv_bfloat16>(y));
  };
  // `up` begins y.cols after `gate`: it is aligned where y's rows are whole quads.
  if (whole_quads(gate_up) && whole_quads(y)) {
    launch(silu_mul_kernel<4>, 4);
  } else {
    launch(silu_mul_kernel<1>, 1);
  }
  check_launch("silu_mul");
}

void launch_gather_rows(Stream stream, TensorView x, TensorView rows, TensorView y) {
  if (y.rows == 0) return;
  const auto launch = [&](auto kernel, int64_t words) {
    const dim3 grid(static_cast<unsigned>(y.rows), blocks_for(words));
    kernel<<<grid, kThreads, 0, stream>>>(rows_of<const float>(x), rows.row<const int32_t>(0),
                                          static_cast<int>(words), rows_of<float>(y));
  };
  if (whole_quads(x) && whole_quads(y)) {
    launch(gather_rows_kernel<float4>, y.cols / 4);
  } else {
    launch(gather_rows_kernel<float>, y.cols);
  }
  check_launch("gather_rows");
}

}  // namespace tramontane::cuda
