// What decode and prefill attention share: where keys lie, how a tile of them is copied, multiplied and
// weighted. Both compute every number by these functions in the same order, which is why they give the same
// bits:
//  - a score is one chain of mma over head_dim in steps of 16, times scale where it is used;
//  - a weight is 2^(score·scale - max·scale), max being the row's running maximum in its chunk, after the
//    tile; rounded to BF16;
//  - a row's sums (of weights, and of weights times values) are one chain of mma over the chunk's keys in
//    steps of 16, scaled where the maximum rises;
//  - chunks are merged in order by merge_factors.
// Steps that a row does not see are left out or computed with weights of 0: adding 0 and scaling by 1 are
// exact.
//
// Queries are the A operand (m16: 16 columns), keys and values B, so a tile of scores is the next product's
// A operand as it lies in registers. The 4 columns of a 7B decode row fill a quarter of the m16; at 64 keys
// a tile that is 128 mma, a tenth of the time that an A100 or H100 takes to read those keys.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

#include "cuda/attention_plan.h"
#include "cuda/ptx.cuh"
#include "cuda/reduce.cuh"

namespace tramontane::cuda {

// Device addresses and scalars of one call.
struct AttentionArguments {
  const float* qkv;  // [n_tokens, qkv_cols]: q is its first columns
  int64_t qkv_stride;
  const int32_t* q_starts;
  const int32_t* kv_lens;
  const int32_t* block_table;
  int64_t table_stride;
  const __nv_bfloat16* pages;  // [block][k|v][kv head][kBlockTokens][head_dim]
  __nv_bfloat16* out;
  int64_t out_stride;
  int n_seqs, n_kv_heads, group, window;
  float scale;  // log2(e) / sqrt(head_dim): weights are powers of two
  // Of the plan:
  int decode_columns, decode_tiles, max_partials, partial_rows;
  int32_t* counters;       // [sequence][tile][kv head]: blocks that have stored their partial results
  float2* partial_states;  // (max, sum) [partial][kv head][partial_rows]
  float* partial_sums;     // [partial][kv head][partial_rows][head_dim]
};

// kDim: head_dim as the tensor cores see it, filled up with zeros to their step of 16.
template <int kHeadDim>
struct HeadGeometry {
  static constexpr int kDim = (kHeadDim + 15) / 16 * 16;
  static constexpr int kSteps = kDim / 16;
  // 64 keys: two of them hide a tile's barriers; 256-wide heads take 32, so that four tiles fit in 70 KB.
  static constexpr int kTileKeys = kDim <= 128 ? 64 : 32;
  static constexpr int kChunkTiles = kAttentionChunk / kTileKeys;
};

// Rows of kWidth elements in shared memory. An odd number of 16-byte words a row: the 8 rows that a quarter
// of an ldmatrix reads then lie in different banks, for every width, and a lane's addresses differ by
// constants.
template <int kWidth>
struct TileRows {
  static constexpr int kWords = kWidth / 8;
  static constexpr int kRowBytes = (kWords | 1) * 16;
};

// The keys of one query row: begin <= key < end. None where end <= begin.
struct KeyRange {
  int begin, end;
};

// The rows of one sequence in the batch.
struct SequenceRows {
  int first, count, kv_len;

  __device__ SequenceRows(const AttentionArguments& a, int sequence)
      : first(a.q_starts[sequence]), count(a.q_starts[sequence + 1] - first), kv_len(a.kv_lens[sequence]) {}

  __device__ int columns(const AttentionArguments& a) const { return count * a.group; }
  // The keys that a column sees. Columns past the last one see what that sees: they need no mask of their
  // own, and their results are not written.
  __device__ KeyRange keys(const AttentionArguments& a, int column) const {
    const int end = kv_len - count + min(column, columns(a) - 1) / a.group + 1;
    return {a.window > 0 ? max(0, end - a.window) : 0, end};
  }
};

// One kv head's pages of one sequence. Offsets are of 32 bits: a block is at most some hundred KB.
struct PagedHead {
  const int32_t* block_table;
  unsigned table_row;  // where the sequence's blocks begin in it
  const __nv_bfloat16* pages;
  unsigned head, part,
      block;  // elements: to this head's page in a block, from keys to values, to the next block

  __device__ PagedHead(const AttentionArguments& a, int sequence, int kv_head, int head_dim)
      : block_table(a.block_table),
        table_row(sequence * static_cast<unsigned>(a.table_stride)),
        pages(a.pages),
        head(kv_head * kBlockTokens * head_dim),
        part(a.n_kv_heads * kBlockTokens * head_dim),
        block(2 * part) {}
};

enum class KvPart { keys, values };

// Begins to copy kKeys rows from `first_key` (a multiple of a page) on, elements [first_element, +kWidth) of
// each. Rows outside of `live`, and elements past head_dim, become zeros: what a page holds there may be NaN,
// and its block may not exist. At least one row is live. All kThreads threads call it.
template <int kHeadDim, int kWidth, int kKeys, int kThreads>
__device__ void copy_tile(std::byte* tile, const PagedHead& head, KvPart part, int first_key, KeyRange live,
                          int first_element = 0) {
  using Rows = TileRows<kWidth>;
  constexpr unsigned kTotal = kKeys * Rows::kWords;
  const unsigned first_live = max(live.begin - first_key, 0);
  const unsigned last_live = min(live.end - first_key, kKeys) - 1;
  const unsigned first_page = head.table_row + static_cast<unsigned>(first_key) / kBlockTokens;
  // Read anew at every call: addresses kept from call to call would cost registers that the sums need.
  const unsigned thread = ptx::thread_index();
#pragma unroll
  for (unsigned i = 0; i < (kTotal + kThreads - 1) / kThreads; ++i) {
    const unsigned at = i * kThreads + thread;
    if (kTotal % kThreads != 0 && at >= kTotal) break;
    const unsigned row = at / Rows::kWords, word = at % Rows::kWords, element = first_element + word * 8;
    const bool valid = row >= first_live && row <= last_live && element < kHeadDim;
    // A row that is not live reads nothing, but its address is that of one that is.
    const unsigned block =
        __ldg(head.block_table + (first_page + min(max(row, first_live), last_live) / kBlockTokens));
    const unsigned in_block = head.head + (part == KvPart::values ? head.part : 0) +
                              row % kBlockTokens * kHeadDim + (element < kHeadDim ? element : 0);
    const __nv_bfloat16* from = head.pages + in_block + uint64_t{block} * head.block;
    ptx::cp_async_16_or_zero(tile + row * Rows::kRowBytes + word * 16, from, valid);
  }
}

// Rows g = lane / 4 and g + 8 of 16 columns as mma's A operand; a null row is zeros.
template <int kHeadDim>
__device__ void load_queries(uint32_t (&q)[HeadGeometry<kHeadDim>::kSteps][4],
                             const float* const (&rows)[2]) {
#pragma unroll
  for (int step = 0; step < HeadGeometry<kHeadDim>::kSteps; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* row = rows[i % 2];
      const int element = step * 16 + i / 2 * 8;  // a multiple of 8, as head_dim is
      float2 pair = {0.0f, 0.0f};
      if (row != nullptr && element < kHeadDim)
        pair = *reinterpret_cast<const float2*>(row + element + threadIdx.x % 4 * 2);
      q[step][i] = ptx::pack_bf16x2(pair.x, pair.y);
    }
  }
}

// The columns g and g + 8 of this lane, of the 16 from first_column on: where they are in qkv and out, and
// what they see. Made anew where it is needed, to keep it out of registers in between.
struct LaneColumns {
  int row[2], head[2];  // row of the batch; -1 past the sequence's last column
  KeyRange keys[2];

  __device__ LaneColumns(const AttentionArguments& a, const SequenceRows& rows, int kv_head,
                         int first_column) {
    const int g = static_cast<int>(ptx::thread_index() % kWarpLanes / 4);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = first_column + g + 8 * i;
      row[i] = column < rows.columns(a) ? rows.first + column / a.group : -1;
      head[i] = kv_head * a.group + column % a.group;
      keys[i] = rows.keys(a, column);
    }
  }

  template <int kHeadDim>
  __device__ void load(const AttentionArguments& a, uint32_t (&q)[HeadGeometry<kHeadDim>::kSteps][4]) const {
    const float* vectors[2];
#pragma unroll
    for (int i = 0; i < 2; ++i)
      vectors[i] = row[i] < 0 ? nullptr : a.qkv + row[i] * a.qkv_stride + int64_t{head[i]} * kHeadDim;
    load_queries<kHeadDim>(q, vectors);
  }

  template <int kHeadDim>
  __device__ void store(const AttentionArguments& a, int i, int element, float low, float high) const {
    if (row[i] < 0 || element >= kHeadDim) return;
    __nv_bfloat16* to = a.out + row[i] * a.out_stride + int64_t{head[i]} * kHeadDim + element;
    *reinterpret_cast<uint32_t*>(to) = ptx::pack_bf16x2(low, high);
  }
};

// scores of 16 columns and kGroups x 16 keys, from the first row of `keys` on. Steps come before groups: 2 x
// kGroups independent chains of mma.
template <int kHeadDim, int kGroups>
__device__ void scores_of(float (&scores)[2 * kGroups][4],
                          const uint32_t (&q)[HeadGeometry<kHeadDim>::kSteps][4], const std::byte* keys) {
  using Rows = TileRows<HeadGeometry<kHeadDim>::kDim>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const std::byte* from = keys + (lane / 16 * 8 + lane % 8) * Rows::kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
  for (int i = 0; i < 2 * kGroups; ++i) scores[i][0] = scores[i][1] = scores[i][2] = scores[i][3] = 0.0f;
#pragma unroll
  for (int step = 0; step < HeadGeometry<kHeadDim>::kSteps; ++step) {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      uint32_t k[4];  // keys 0-7: elements 0-7, 8-15 of the step; keys 8-15 likewise
      ptx::ldmatrix_x4(k, from + group * 16 * Rows::kRowBytes + step * 32);
      ptx::mma_bf16(scores[2 * group], q[step], k[0], k[1]);
      ptx::mma_bf16(scores[2 * group + 1], q[step], k[2], k[3]);
    }
  }
}

// sums += weights of 16 keys times 16 elements of their values; `values` is the first key's row, at the
// first of the elements.
template <int kWidth>
__device__ void add_values(float (&low)[4], float (&high)[4], const uint32_t (&weights)[4],
                           const std::byte* values) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  uint32_t v[4];  // elements 0-7: keys 0-7, 8-15; elements 8-15 likewise
  ptx::ldmatrix_x4_trans(v, values + lane % 16 * TileRows<kWidth>::kRowBytes + lane / 16 * 16);
  ptx::mma_bf16(low, weights, v[0], v[1]);
  ptx::mma_bf16(high, weights, v[2], v[3]);
}

// The sum of weights by the same chain of mma: values that are all 1. Every column of the result is the sum.
__device__ inline void add_weights(float (&sums)[4], const uint32_t (&weights)[4]) {
  constexpr uint32_t kOnes = 0x3f803f80u;  // BF16 1, 1
  ptx::mma_bf16(sums, weights, kOnes, kOnes);
}

inline constexpr float kNoScore = -INFINITY;  // of a key that is not seen; the maximum of none

// kTiles x 8 keys from first_key on: those that a row does not see get kNoScore.
template <int kTiles>
__device__ void mask(float (&scores)[kTiles][4], int first_key, const LaneColumns& columns) {
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + tile * 8 + static_cast<int>(threadIdx.x) % 4 * 2 + i % 2;
      const KeyRange& seen = columns.keys[i / 2];
      if (key < seen.begin || key >= seen.end) scores[tile][i] = kNoScore;
    }
  }
}

// The greatest score of row g (i = 0) or g + 8 (i = 1).
template <int kTiles>
__device__ float row_max(const float (&scores)[kTiles][4], int i) {
  float most = fmaxf(scores[0][2 * i], scores[0][2 * i + 1]);
#pragma unroll
  for (int tile = 1; tile < kTiles; ++tile)
    most = fmaxf(most, fmaxf(scores[tile][2 * i], scores[tile][2 * i + 1]));
  most = fmaxf(most, __shfl_xor_sync(kAllLanes, most, 1));
  return fmaxf(most, __shfl_xor_sync(kAllLanes, most, 2));
}

// What sums relative to `from` are multiplied with to be relative to `to` >= from; 1 where they are equal, 0
// for sums of nothing.
__device__ inline float factor_between(float from, float to, float scale) {
  const float distance = to == kNoScore ? from : __fsub_rn(from, to);
  return ptx::exp2_approx(__fmul_rn(distance, scale));
}

// Scores to weights relative to max.
__device__ inline float weight_of(float score, float max_scaled, float scale) {
  return ptx::exp2_approx(__fmaf_rn(score, scale, -max_scaled));
}
__device__ inline float scaled_max(float max, float scale) {
  return max == kNoScore ? 0.0f : __fmul_rn(max, scale);
}

// One row's total over chunks 0 .. c-1 and the result of chunk c become the total over 0 .. c: max, then
// each sum = total · first + chunk · second.
struct MergeFactors {
  float max, total, chunk;

  __device__ MergeFactors(float total_max, float chunk_max, float scale)
      : max(fmaxf(total_max, chunk_max)),
        total(factor_between(total_max, max, scale)),
        chunk(factor_between(chunk_max, max, scale)) {}
  __device__ float merge(float total_sum, float chunk_sum) const {
    return __fmaf_rn(chunk_sum, chunk, __fmul_rn(total_sum, total));
  }
};

// A lane's part of 16 columns' sums over one chunk, or over all so far: of rows g and g + 8, the greatest
// score, the weights, and the weighted values of kGroups x 8 elements.
template <int kGroups>
struct Sums {
  float max[2];
  float weights[4];
  float values[kGroups][4];

  __device__ void clear() {
    max[0] = max[1] = kNoScore;
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[i] = 0.0f;
#pragma unroll
    for (int j = 0; j < kGroups; ++j) values[j][0] = values[j][1] = values[j][2] = values[j][3] = 0.0f;
  }
  __device__ void scale(const float (&factors)[2]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weights[i] = __fmul_rn(weights[i], factors[i / 2]);
#pragma unroll
      for (int j = 0; j < kGroups; ++j) values[j][i] = __fmul_rn(values[j][i], factors[i / 2]);
    }
  }
  __device__ void merge(const Sums& chunk, float scale) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const MergeFactors factors(max[row], chunk.max[row], scale);
      max[row] = factors.max;
#pragma unroll
      for (int i = 2 * row; i < 2 * row + 2; ++i) {
        weights[i] = factors.merge(weights[i], chunk.weights[i]);
#pragma unroll
        for (int j = 0; j < kGroups; ++j) values[j][i] = factors.merge(values[j][i], chunk.values[j][i]);
      }
    }
  }
};

// What a sum of weighted values is divided by; rows that see no key are zeros.
__device__ inline float inverse_of(float weights) {
  return weights == 0.0f ? 0.0f : __frcp_rn(weights);  // a NaN must not vanish
}

// The tiles of keys that a block walks, in order: all, or every stride-th chunk of them.
struct TileCursor {
  int tile, end, skip;  // skip: tiles between the end of one chunk and the beginning of the next

  template <int kChunkTiles>
  __device__ void advance() {
    ++tile;
    if (tile % kChunkTiles == 0) tile += skip;
  }
  __device__ bool valid() const { return tile < end; }
};

}  // namespace tramontane::cuda
