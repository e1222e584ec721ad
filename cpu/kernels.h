// CpuKernels: one function pointer per row-wise operation, one table per instruction set. cpu_backend.cpp
// checks shapes and shares the rows out among threads; a kernel does one row, or one tile of attention, on
// the calling thread and allocates nothing.
//
// The files that implement a table are compiled with that instruction set's flags. So this header holds plain
// data alone: an inline function here could be emitted with AVX-512 code in it and then be the copy the
// linker keeps for everyone.
#pragma once

#include <cstdint>

namespace tramontane {

inline constexpr int kPageTokens = 16;  // kBlockTokens of backend.h
inline constexpr int kAttentionChunk =
    256;  // keys of one partial softmax; chunks start at multiples of it (fixed chunks keep decision 5)
inline constexpr int kAttentionQueries =
    32;  // most query vectors of one tile: their scores (32 KB) stay in L1/L2
inline constexpr float kNoScore =
    -3.402823466e38f;  // the score of a key that is not seen: lowest float, so that max() passes over it

// Order inside a head-page (16 tokens x head_dim elements), so that one 64-byte vector holds a pair of
// elements for 16 lanes:
//   k: [head_dim / 2][16 tokens][2]     lanes are tokens, the pair is (d, d + 1)
//   v: [16 tokens / 2][head_dim][2]     lanes are elements of the head, the pair is (token, token + 1)

// Rotates q and k of one row in place and stores its k and v.
struct RopeRow {
  float* qkv;         // [(n_heads + 2 * n_kv_heads) * head_dim]
  const float* rope;  // [head_dim]: (cos, sin) pairs of the row's position
  void* k_page;  // the block's k head-pages, head 0 first; a head-page is kPageTokens * head_dim elements
  void* v_page;
  int32_t n_heads, n_kv_heads, head_dim;
  int32_t token;  // the row's place in its block, 0..15
};

// Softmax and weighted sum of a tile of query vectors over one chunk of keys: a partial result, to be merged
// with those of other chunks. Each query's result depends on its own vector and its own keys alone, never on
// the other queries of the tile.
struct AttentionChunk {
  const float* q;              // [n_queries, head_dim], already divided by sqrt(head_dim)
  const void* const* k_pages;  // [kAttentionChunk / kPageTokens] head-pages of this kv head; those past the
                               // last seen key are not read
  const void* const* v_pages;
  const int32_t*
      begin;  // [n_queries]: query i sees keys begin[i] <= key < end[i] of the chunk; none where begin >= end
  const int32_t* end;
  float* scores;  // [n_queries, kAttentionChunk] scratch, 64-byte aligned
  float* max;     // out [n_queries]: the greatest score seen
  float* sum;     // out [n_queries]: sum of exp(score - max); 0 where no key is seen
  float* out;     // out [n_queries, head_dim]: sum of exp(score - max) * v
  int32_t n_queries, head_dim;
};

struct CpuKernels {
  // x[n] += delta[n] (unless null); y[n] = x / sqrt(mean(x^2) + eps) * w[n].  y in act_dtype.
  void (*add_rmsnorm)(float* x, const float* delta, const float* w, float eps, void* y, int64_t n);
  void (*rope_store_kv)(const RopeRow& row);
  void (*attention)(const AttentionChunk& chunk);
  // y[n] = silu(gate[n]) * up[n].  y in act_dtype. Each element is independent of n and of its place.
  void (*silu_mul)(const float* gate, const float* up, void* y, int64_t n);
};

const CpuKernels& scalar_kernels();      // the specification: plain loops
const CpuKernels& scalar_f32_kernels();  // likewise with act_dtype F32
const CpuKernels& avx2_kernels();
const CpuKernels& avx512_kernels();

}  // namespace tramontane
