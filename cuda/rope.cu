#include <cuda_bf16.h>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"
#include "cuda/rope.h"

namespace tramontane::cuda {
namespace {

constexpr int kThreads = 256;  // a 7B row is 768 threads of 8 elements: 3 blocks, all of their loads at once

struct RopeArguments {
  float* qkv;
  int64_t stride;
  const int32_t* positions;
  const int32_t* slots;
  const float* rope;  // [max_position, head_dim]
  int64_t rope_stride;
  __nv_bfloat16* pages;
  int n_heads, n_kv_heads, head_dim;
};

// Where the head-page element `d` of one row lies: [block][k|v][kv head][16][head_dim].
__device__ __nv_bfloat16* page_element(const RopeArguments& a, int slot, int value, int kv_head, int d) {
  const int64_t head_page = (int64_t{slot / kBlockTokens} * 2 + value) * a.n_kv_heads + kv_head;
  return a.pages + (head_page * kBlockTokens + slot % kBlockTokens) * a.head_dim + d;
}

// Neighbouring pairs of one head: 4 are two 16-byte accesses, and one in BF16.
template <int kPairs>
struct alignas(kPairs == 4 ? 16 : 4) Pairs {
  float values[2 * kPairs];
};
template <int kPairs>
struct alignas(4 * kPairs) PairsBf16 {
  uint32_t words[kPairs];
};

// One thread turns and stores 4 pairs of a head, or one where rows are not aligned.
template <int kPairs>
__global__ void __launch_bounds__(kThreads) rope_store_kv_kernel(RopeArguments a) {
  const int row = static_cast<int>(blockIdx.x);
  const int column = (static_cast<int>(blockIdx.y) * kThreads + static_cast<int>(threadIdx.x)) * 2 * kPairs;
  const int head = column / a.head_dim, d = column % a.head_dim;
  if (head >= a.n_heads + 2 * a.n_kv_heads) return;
  const bool is_value = head >= a.n_heads + a.n_kv_heads;

  auto* at = reinterpret_cast<Pairs<kPairs>*>(a.qkv + row * a.stride + column);
  Pairs<kPairs> pairs = *at;
  if (!is_value) {
    const auto turn = *reinterpret_cast<const Pairs<kPairs>*>(a.rope + a.positions[row] * a.rope_stride + d);
#pragma unroll
    for (int i = 0; i < 2 * kPairs; i += 2) {
      const float2 turned =
          rotate({pairs.values[i], pairs.values[i + 1]}, {turn.values[i], turn.values[i + 1]});
      pairs.values[i] = turned.x;
      pairs.values[i + 1] = turned.y;
    }
    *at = pairs;
  }

  const int slot = a.slots[row];
  if (head < a.n_heads || slot < 0) return;  // q, or a padding row
  const int kv_head = head - a.n_heads - (is_value ? a.n_kv_heads : 0);
  PairsBf16<kPairs> stored;
#pragma unroll
  for (int i = 0; i < kPairs; ++i)
    stored.words[i] = ptx::pack_bf16x2(pairs.values[2 * i], pairs.values[2 * i + 1]);
  *reinterpret_cast<PairsBf16<kPairs>*>(page_element(a, slot, is_value ? 1 : 0, kv_head, d)) = stored;
}

}  // namespace

void load_rope_kernels() {
  load_kernel(rope_store_kv_kernel<4>, 0, "rope_store_kv");
  load_kernel(rope_store_kv_kernel<1>, 0, "rope_store_kv");
}

void launch_rope_store_kv(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                          TensorView rope, KvLayer kv) {
  if (batch.n_tokens == 0) return;
  const RopeArguments arguments{.qkv = qkv.row<float>(0),
                                .stride = qkv.row_stride,
                                .positions = batch.positions.row<const int32_t>(0),
                                .slots = batch.slots.row<const int32_t>(0),
                                .rope = rope.row<const float>(0),
                                .rope_stride = rope.row_stride,
                                .pages = reinterpret_cast<__nv_bfloat16*>(kv.data),
                                .n_heads = shape.n_heads,
                                .n_kv_heads = shape.n_kv_heads,
                                .head_dim = shape.head_dim};
  const auto launch = [&](auto kernel, int elements) {
    const int64_t threads = shape.qkv_cols() / elements;
    const dim3 grid(static_cast<unsigned>(batch.n_tokens),
                    static_cast<unsigned>((threads + kThreads - 1) / kThreads));
    kernel<<<grid, kThreads, 0, stream>>>(arguments);
  };
  const bool aligned = shape.head_dim % 8 == 0 && qkv.row_stride % 4 == 0 && rope.row_stride % 4 == 0 &&
                       reinterpret_cast<uintptr_t>(qkv.data) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(rope.data) % 16 == 0;
  if (aligned) {
    launch(rope_store_kv_kernel<4>, 8);
  } else {
    launch(rope_store_kv_kernel<1>, 2);
  }
  check_launch("rope_store_kv");
}

}  // namespace tramontane::cuda
