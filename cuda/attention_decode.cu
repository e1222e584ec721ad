// Decode attention: for sequences of few columns, many blocks share the keys of one tile of 16 columns.
#include "cuda/attention_kernels.h"
#include "cuda/attention_tile.cuh"
#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"

namespace tramontane::cuda {
namespace {

// 4 warps: one for each 16 of a tile's 64 keys, and for each quarter of the values' elements.
constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpLanes;

template <int kHeadDim>
struct DecodeGeometry : HeadGeometry<kHeadDim> {
  using Head = HeadGeometry<kHeadDim>;
  using Rows = TileRows<Head::kDim>;
  using WeightRows = TileRows<Head::kTileKeys>;
  static constexpr int kKeyGroups = Head::kTileKeys / 16;                      // one a warp
  static constexpr int kElementGroups = (Head::kSteps + kWarps - 1) / kWarps;  // most of a warp
  static constexpr int kTileBytes = Head::kTileKeys * Rows::kRowBytes;
  // Blocks of an SM that registers leave room for; shared memory at head_dim 128 does on H100, for two on
  // A100.
  static constexpr int kBlocks = Head::kDim <= 128 ? 3 : 2;
};

// Two tiles of keys and two of values in a ring: while one is multiplied the next three are under way, 51 KB
// a block at head_dim 128 (70 KB in all). An SM needs some 30 KB in flight to keep its share of the memory
// busy.
template <int kHeadDim>
struct DecodeShared {
  using G = DecodeGeometry<kHeadDim>;
  alignas(16) std::byte keys[2][G::kTileBytes];
  alignas(16) std::byte values[2][G::kTileBytes];
  alignas(16) std::byte weights[kDecodeTile * G::WeightRows::kRowBytes];
  float maxima[G::kKeyGroups][kDecodeTile];
  int is_last;
};

// How one tile of columns is shared out; every block of the tile computes the same.
struct Share {
  int first_chunk, n_chunks;  // that the tile's columns see
  int partial;                // where the tile's partial results begin; negative: one block walks all chunks
};

// Chunks that any row of a sequence sees.
__device__ int2 chunks_of(const AttentionArguments& a, const SequenceRows& rows) {
  const int first = rows.keys(a, 0).begin / kAttentionChunk;
  return {first, (max(rows.kv_len, 0) + kAttentionChunk - 1) / kAttentionChunk - first};
}
__device__ int tiles_of(const AttentionArguments& a, const SequenceRows& rows) {
  return (rows.columns(a) + kDecodeTile - 1) / kDecodeTile;
}
// Partial results that a sequence stores; none where one chunk is all.
__device__ int partials_of(const AttentionArguments& a, int sequence) {
  const SequenceRows rows(a, sequence);
  const int chunks = chunks_of(a, rows).y;
  return rows.columns(a) > a.decode_columns || chunks <= 1 ? 0 : tiles_of(a, rows) * chunks;
}

// Whole warps call it.
__device__ Share share_of(const AttentionArguments& a, int sequence, int tile, KeyRange keys) {
  int before = 0;
  for (int s = static_cast<int>(threadIdx.x) % kWarpLanes; s < sequence; s += kWarpLanes)
    before += partials_of(a, s);
  before = __reduce_add_sync(kAllLanes, before);
  const int own = partials_of(a, sequence);
  const int end_chunk = (max(keys.end, 0) + kAttentionChunk - 1) / kAttentionChunk;
  const int first_chunk = keys.begin / kAttentionChunk;
  const bool fits = own > 0 && before + own <= a.max_partials;
  const int tiles = tiles_of(a, SequenceRows(a, sequence));
  return {first_chunk, end_chunk - first_chunk, fits ? before + own / max(tiles, 1) * tile : -1};
}

// A warp has the elements of its groups: group i is elements (warp + i * kWarps) * 16 and on.
template <int kHeadDim>
using WarpSums = Sums<2 * DecodeGeometry<kHeadDim>::kElementGroups>;

// visit(row 0 or 1, first of two elements, their sums)
template <int kHeadDim, typename Visit>
__device__ void for_each_pair(const WarpSums<kHeadDim>& sums, const Visit& visit) {
  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes, t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int j = 0; j < 2 * DecodeGeometry<kHeadDim>::kElementGroups; ++j) {
    const int element = (warp + j / 2 * kWarps) * 16 + j % 2 * 8 + 2 * t;
    if (element >= kHeadDim) continue;
    visit(0, element, sums.values[j][0], sums.values[j][1]);
    visit(1, element, sums.values[j][2], sums.values[j][3]);
  }
}

// Where the partial result of one chunk and column is.
template <int kHeadDim>
struct PartialPlace {
  float2* state;
  float* sums;
  __device__ PartialPlace(const AttentionArguments& a, int partial, int kv_head, int column) {
    const int64_t row = (int64_t{partial} * a.n_kv_heads + kv_head) * a.partial_rows + column;
    state = a.partial_states + row;
    sums = a.partial_sums + row * kHeadDim;
  }
};

template <int kHeadDim>
__device__ void store_partial(const AttentionArguments& a, const LaneColumns& columns, int partial,
                              int kv_head, const WarpSums<kHeadDim>& sums) {
  const int g = static_cast<int>(threadIdx.x) % kWarpLanes / 4;
  for_each_pair<kHeadDim>(sums, [&](int row, int element, float low, float high) {
    if (columns.row[row] < 0) return;
    const PartialPlace<kHeadDim> place(a, partial, kv_head, g + 8 * row);
    *reinterpret_cast<float2*>(place.sums + element) = {low, high};
  });
  if (threadIdx.x >= kWarpLanes || threadIdx.x % 4 != 0)
    return;  // the state is every warp's and quad's: one writes
  for (int row = 0; row < 2; ++row) {
    if (columns.row[row] < 0) continue;
    *PartialPlace<kHeadDim>(a, partial, kv_head, g + 8 * row).state = {sums.max[row], sums.weights[2 * row]};
  }
}

// The last block of a tile adds the chunks' results in order. A thread has 4 neighbouring elements of one
// column; partial results are fetched 8 chunks at a time, since each waits for L2.
template <int kHeadDim>
__device__ void merge_partials(const AttentionArguments& a, const SequenceRows& rows, int tile, int kv_head,
                               const Share& share) {
  constexpr int kBatch = 8, kQuads = kHeadDim / 4;
  const int n_columns = min(rows.columns(a) - tile * kDecodeTile, kDecodeTile);
  for (int at = static_cast<int>(threadIdx.x); at < n_columns * kQuads; at += kThreads) {
    const int column = at / kQuads, element = at % kQuads * 4;
    float max = kNoScore, weights = 0.0f;
    float4 sums = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int first = 0; first < share.n_chunks; first += kBatch) {
      float2 states[kBatch];
      float4 parts[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= share.n_chunks) break;
        const PartialPlace<kHeadDim> place(a, share.partial + first + i, kv_head, column);
        states[i] = __ldcg(place.state);  // other SMs wrote it: from L2
        parts[i] = __ldcg(reinterpret_cast<const float4*>(place.sums + element));
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (first + i >= share.n_chunks) break;
        const MergeFactors factors(max, states[i].x, a.scale);
        max = factors.max;
        weights = factors.merge(weights, states[i].y);
        sums = {factors.merge(sums.x, parts[i].x), factors.merge(sums.y, parts[i].y),
                factors.merge(sums.z, parts[i].z), factors.merge(sums.w, parts[i].w)};
      }
    }
    const int index = tile * kDecodeTile + column;
    const float inverse = inverse_of(weights);
    __nv_bfloat16* to = a.out + (rows.first + index / a.group) * a.out_stride +
                        int64_t{kv_head * a.group + index % a.group} * kHeadDim + element;
    reinterpret_cast<uint32_t*>(to)[0] =
        ptx::pack_bf16x2(__fmul_rn(sums.x, inverse), __fmul_rn(sums.y, inverse));
    reinterpret_cast<uint32_t*>(to)[1] =
        ptx::pack_bf16x2(__fmul_rn(sums.z, inverse), __fmul_rn(sums.w, inverse));
  }
}

// Whether this block is the last of `blocks` to store its partial results; the counter is then zero again,
// for the next call. Every thread gets the answer, and may read what the others stored.
__device__ bool is_last_block(int* counter, int blocks, int& shared_answer) {
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared_answer = atomicAdd(counter, 1) == blocks - 1 ? 1 : 0;
    if (shared_answer != 0) *counter = 0;
  }
  __syncthreads();
  __threadfence();
  return shared_answer != 0;
}

// Grid: (sequence, tile of columns) x kv head x split. Split i of n takes the tile's chunks i, i + n, ….
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, DecodeGeometry<kHeadDim>::kBlocks)
    attention_decode_kernel(const AttentionArguments a) {
  using G = DecodeGeometry<kHeadDim>;
  extern __shared__ __align__(16) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<DecodeShared<kHeadDim>*>(shared_bytes);
  const int sequence = static_cast<int>(blockIdx.x) / a.decode_tiles;
  const int tile_index = static_cast<int>(blockIdx.x) % a.decode_tiles;
  const int kv_head = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.z);
  const SequenceRows rows(a, sequence);
  const int first_column = tile_index * kDecodeTile;
  if (rows.columns(a) > a.decode_columns || first_column >= rows.columns(a)) return;

  // What all of the tile's columns see, and what any sees.
  const KeyRange first_keys = rows.keys(a, first_column),
                 last_keys = rows.keys(a, first_column + kDecodeTile - 1);
  const KeyRange live = {first_keys.begin, last_keys.end};
  const Share share = share_of(a, sequence, tile_index, live);
  const bool alone = share.partial < 0;
  const int splits = alone ? 1 : static_cast<int>(gridDim.z);
  if (alone ? split > 0 : split >= share.n_chunks) return;

  const auto cursor_at_start = [&] {
    const int tile = max((share.first_chunk + split) * G::kChunkTiles, live.begin / G::kTileKeys);
    return TileCursor{tile, (max(live.end, 0) + G::kTileKeys - 1) / G::kTileKeys,
                      (splits - 1) * G::kChunkTiles};
  };
  const PagedHead pages(a, sequence, kv_head, kHeadDim);
  TileCursor next[2] = {cursor_at_start(), cursor_at_start()};  // to copy: keys, values
  int copied[2] = {0, 0};
  const auto copy_next = [&](KvPart part) {
    const int p = static_cast<int>(part);
    if (next[p].valid()) {
      std::byte* to = part == KvPart::keys ? shared.keys[copied[p] % 2] : shared.values[copied[p] % 2];
      copy_tile<kHeadDim, G::kDim, G::kTileKeys, kThreads>(to, pages, part, next[p].tile * G::kTileKeys,
                                                           live);
      next[p].template advance<G::kChunkTiles>();
      ++copied[p];
    }
    ptx::cp_async_commit();  // also an empty group: the waits below count them
  };
  copy_next(KvPart::keys);
  copy_next(KvPart::values);
  copy_next(KvPart::keys);

  const int warp = static_cast<int>(threadIdx.x) / kWarpLanes,
            lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  uint32_t q[G::kSteps][4];
  LaneColumns(a, rows, kv_head, first_column).load<kHeadDim>(a, q);

  WarpSums<kHeadDim> chunk, total;
  chunk.clear();
  total.clear();
  int stage = 0;
  for (TileCursor at = cursor_at_start(); at.valid(); stage ^= 1) {
    const int first_key = at.tile * G::kTileKeys;
    ptx::cp_async_wait<2>();
    __syncthreads();  // this tile's keys are there; the last tile's values and weights are used up
    copy_next(KvPart::values);

    // Each warp scores 16 keys; the row's maximum goes through shared memory.
    float scores[2][4];
    if (warp < G::kKeyGroups) {
      scores_of<kHeadDim, 1>(scores, q, shared.keys[stage] + warp * 16 * G::Rows::kRowBytes);
      if (first_key < last_keys.begin || first_key + G::kTileKeys > first_keys.end)
        mask(scores, first_key + warp * 16, LaneColumns(a, rows, kv_head, first_column));
#pragma unroll
      for (int row = 0; row < 2; ++row) {
        const float most = row_max(scores, row);
        if (lane % 4 == 0) shared.maxima[warp][lane / 4 + 8 * row] = most;
      }
    }
    __syncthreads();
    float factors[2], base[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float most = chunk.max[row];
#pragma unroll
      for (int group = 0; group < G::kKeyGroups; ++group)
        most = fmaxf(most, shared.maxima[group][lane / 4 + 8 * row]);
      factors[row] = factor_between(chunk.max[row], most, a.scale);
      base[row] = scaled_max(most, a.scale);
      chunk.max[row] = most;
    }
    if (warp < G::kKeyGroups) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {  // rows g, g + 8 of keys 2t, 2t+1, then of keys 2t+8, 2t+9
        const int row = i % 2;
        const float* pair = scores[i / 2] + 2 * row;
        std::byte* to = shared.weights + (lane / 4 + 8 * row) * G::WeightRows::kRowBytes +
                        (warp * 16 + i / 2 * 8 + lane % 4 * 2) * 2;
        *reinterpret_cast<uint32_t*>(to) =
            ptx::pack_bf16x2(weight_of(pair[0], base[row], a.scale), weight_of(pair[1], base[row], a.scale));
      }
    }
    ptx::cp_async_wait<2>();
    __syncthreads();  // this tile's values and weights are there; its keys are used up
    copy_next(KvPart::keys);

    // Each warp adds all 64 keys to its share of the values' elements.
    chunk.scale(factors);
#pragma unroll
    for (int step = 0; step < G::kKeyGroups; ++step) {
      uint32_t weights[4];  // rows 0-7, 8-15 of keys 0-7; likewise of keys 8-15
      ptx::ldmatrix_x4(weights,
                       shared.weights + lane % 16 * G::WeightRows::kRowBytes + step * 32 + lane / 16 * 16);
      add_weights(chunk.weights, weights);
#pragma unroll
      for (int i = 0; i < G::kElementGroups; ++i) {
        const int group = warp + i * kWarps;
        if (G::kSteps % kWarps != 0 && group >= G::kSteps) break;
        add_values<G::kDim>(chunk.values[2 * i], chunk.values[2 * i + 1], weights,
                            shared.values[stage] + step * 16 * G::Rows::kRowBytes + group * 32);
      }
    }

    const int tile_chunk = at.tile / G::kChunkTiles;
    at.advance<G::kChunkTiles>();
    if (at.valid() && at.tile / G::kChunkTiles == tile_chunk) continue;
    if (alone) {
      total.merge(chunk, a.scale);
    } else {
      store_partial<kHeadDim>(a, LaneColumns(a, rows, kv_head, first_column),
                              share.partial + tile_chunk - share.first_chunk, kv_head, chunk);
    }
    chunk.clear();
  }

  if (alone) {
    const LaneColumns columns(a, rows, kv_head, first_column);
    const float inverse[2] = {inverse_of(total.weights[0]), inverse_of(total.weights[2])};
    for_each_pair<kHeadDim>(total, [&](int row, int element, float low, float high) {
      columns.store<kHeadDim>(a, row, element, __fmul_rn(low, inverse[row]), __fmul_rn(high, inverse[row]));
    });
    return;
  }
  int* counter = a.counters + static_cast<int>(blockIdx.x) * a.n_kv_heads + kv_head;
  if (is_last_block(counter, min(splits, share.n_chunks), shared.is_last))
    merge_partials<kHeadDim>(a, rows, tile_index, kv_head, share);
}

}  // namespace

template <int kHeadDim>
void load_attention_decode() {
  static_assert(sizeof(DecodeShared<kHeadDim>) <= kMostSharedBytes);
  load_kernel(attention_decode_kernel<kHeadDim>, sizeof(DecodeShared<kHeadDim>), "attention");
}

template <int kHeadDim>
void launch_attention_decode(Stream stream, const AttentionArguments& arguments, const AttentionPlan& plan) {
  const auto kernel = attention_decode_kernel<kHeadDim>;
  constexpr int kBytes = sizeof(DecodeShared<kHeadDim>);
  load_attention_decode<kHeadDim>();
  const dim3 grid(static_cast<unsigned>(arguments.n_seqs * plan.decode_tiles),
                  static_cast<unsigned>(arguments.n_kv_heads), static_cast<unsigned>(plan.splits));
  kernel<<<grid, kThreads, kBytes, stream>>>(arguments);
  check_launch("attention (decode)");
}

#define TRAMONTANE_INSTANTIATE(head_dim)           \
  template void load_attention_decode<head_dim>(); \
  template void launch_attention_decode<head_dim>(Stream, const AttentionArguments&, const AttentionPlan&);
TRAMONTANE_ATTENTION_HEAD_DIMS(TRAMONTANE_INSTANTIATE)

}  // namespace tramontane::cuda
