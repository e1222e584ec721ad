// Prefill attention: for sequences of many columns, a block walks all keys of one tile of 128 columns.
#include "cuda/attention_kernels.h"
#include "cuda/attention_tile.cuh"
#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"

namespace tramontane::cuda {
namespace {

// 8 warps of 16 columns: a tile of keys is fetched once for 128 columns (32 rows of a 7B prompt). A warp's
// sums, of its chunk and in total, take 128 of its 255 registers, so 8 warps are what an SM holds.
constexpr int kWarps = kPrefillTile / 16;
constexpr int kThreads = kWarps * kWarpLanes;

// kValues: elements of a value that one block sums; heads wider than 128 are shared by two blocks, which both
// compute the scores, because the sums of 256 would not fit in registers.
template <int kHeadDim>
struct PrefillGeometry : HeadGeometry<kHeadDim> {
  using Head = HeadGeometry<kHeadDim>;
  static constexpr int kValues = Head::kDim <= 128 ? Head::kDim : 128;
  static constexpr int kValueParts = Head::kDim / kValues;
  static constexpr int kKeyGroups = Head::kTileKeys / 16;
  using KeyRows = TileRows<Head::kDim>;
  using ValueRows = TileRows<kValues>;
};

// A ring as decode's: two tiles of keys and two of values, 68 KB at head_dim 128, which every GPU from sm_80
// on has.
template <int kHeadDim>
struct PrefillShared {
  using G = PrefillGeometry<kHeadDim>;
  alignas(16) std::byte keys[2][G::kTileKeys * G::KeyRows::kRowBytes];
  alignas(16) std::byte values[2][G::kTileKeys * G::ValueRows::kRowBytes];
};

// The sequence and first column of the index-th tile; a sequence's last tile, which has most keys, is its
// first. False past the last one. Whole warps call it.
struct TilePlace {
  int sequence, first_column;
};
__device__ bool find_tile(const AttentionArguments& a, int index, TilePlace& place) {
  for (int first = 0; first < a.n_seqs; first += kWarpLanes) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpLanes, sequence = first + lane;
    int end = 0;  // tiles of this lane's sequence, then of all up to it
    if (sequence < a.n_seqs) {
      const int columns = (a.q_starts[sequence + 1] - a.q_starts[sequence]) * a.group;
      if (columns > a.decode_columns) end = (columns + kPrefillTile - 1) / kPrefillTile;
    }
#pragma unroll
    for (int offset = 1; offset < kWarpLanes; offset *= 2) {
      const int before = __shfl_up_sync(kAllLanes, end, offset);
      if (lane >= offset) end += before;
    }
    const unsigned after = __ballot_sync(kAllLanes, index < end);
    if (after != 0) {
      const int found = __ffs(static_cast<int>(after)) - 1;
      place = {first + found, (__shfl_sync(kAllLanes, end, found) - 1 - index) * kPrefillTile};
      return true;
    }
    index -= __shfl_sync(kAllLanes, end, kWarpLanes - 1);
  }
  return false;
}

// The scores of a tile become weights relative to the maxima that it raises, as A operands; gives the factors
// for the sums so far.
template <int kKeyGroups>
__device__ void weigh(const float (&scores)[2 * kKeyGroups][4], float scale, float (&max)[2],
                      float (&factors)[2], uint32_t (&weights)[kKeyGroups][4]) {
#pragma unroll
  for (int row = 0; row < 2; ++row) {
    const float most = fmaxf(max[row], row_max(scores, row));
    factors[row] = factor_between(max[row], most, scale);
    max[row] = most;
    const float base = scaled_max(most, scale);
#pragma unroll
    for (int j = 0; j < 2 * kKeyGroups; ++j)
      weights[j / 2][j % 2 * 2 + row] = ptx::pack_bf16x2(weight_of(scores[j][2 * row], base, scale),
                                                         weight_of(scores[j][2 * row + 1], base, scale));
  }
}

// Grid: tile of columns, of all sequences in a row x (kv head, part of the values' elements).
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads, 1) attention_prefill_kernel(const AttentionArguments a) {
  using G = PrefillGeometry<kHeadDim>;
  extern __shared__ __align__(16) std::byte shared_bytes[];
  auto& shared = *reinterpret_cast<PrefillShared<kHeadDim>*>(shared_bytes);
  TilePlace place;
  if (!find_tile(a, static_cast<int>(blockIdx.x), place)) return;
  const int kv_head = static_cast<int>(blockIdx.y) / G::kValueParts;
  const int first_value = static_cast<int>(blockIdx.y) % G::kValueParts * G::kValues;
  const SequenceRows rows(a, place.sequence);

  // The keys that any column of the block sees, and that the warp's first and last columns see.
  const KeyRange live = {rows.keys(a, place.first_column).begin,
                         rows.keys(a, place.first_column + kPrefillTile - 1).end};
  const int warp_column = place.first_column + static_cast<int>(threadIdx.x) / kWarpLanes * 16;
  const KeyRange first_keys = rows.keys(a, warp_column), last_keys = rows.keys(a, warp_column + 15);
  const bool has_columns = warp_column < rows.columns(a);

  const TileCursor start{live.begin / G::kTileKeys, (max(live.end, 0) + G::kTileKeys - 1) / G::kTileKeys, 0};
  const PagedHead pages(a, place.sequence, kv_head, kHeadDim);
  const auto copy_keys = [&](int tile) {
    if (tile < start.end)
      copy_tile<kHeadDim, G::kDim, G::kTileKeys, kThreads>(shared.keys[(tile - start.tile) % 2], pages,
                                                           KvPart::keys, tile * G::kTileKeys, live);
    ptx::cp_async_commit();  // also an empty group: the waits below count them
  };
  const auto copy_values = [&](int tile) {
    if (tile < start.end)
      copy_tile<kHeadDim, G::kValues, G::kTileKeys, kThreads>(shared.values[(tile - start.tile) % 2], pages,
                                                              KvPart::values, tile * G::kTileKeys, live,
                                                              first_value);
    ptx::cp_async_commit();
  };
  copy_keys(start.tile);
  copy_values(start.tile);
  copy_keys(start.tile + 1);

  uint32_t q[G::kSteps][4];
  LaneColumns(a, rows, kv_head, warp_column).load<kHeadDim>(a, q);
  Sums<G::kValues / 8> chunk, total;
  chunk.clear();
  total.clear();

  for (int tile = start.tile; tile < start.end; ++tile) {
    const int first_key = tile * G::kTileKeys, stage = (tile - start.tile) % 2;
    // Tiles that none of the warp's columns sees would add 0.
    const bool sees = has_columns && first_key < last_keys.end && first_key + G::kTileKeys > first_keys.begin;
    ptx::cp_async_wait<2>();
    __syncthreads();  // this tile's keys are there; the last tile's values are used up
    copy_values(tile + 1);

    uint32_t weights[G::kKeyGroups][4];
    if (sees) {
      float scores[2 * G::kKeyGroups][4], factors[2];
      scores_of<kHeadDim, G::kKeyGroups>(scores, q, shared.keys[stage]);
      if (first_key < last_keys.begin || first_key + G::kTileKeys > first_keys.end)
        mask(scores, first_key, LaneColumns(a, rows, kv_head, warp_column));
      weigh<G::kKeyGroups>(scores, a.scale, chunk.max, factors, weights);
      // Mostly no maximum rises, and to scale by 1 changes nothing.
      if (__any_sync(kAllLanes, factors[0] != 1.0f || factors[1] != 1.0f)) chunk.scale(factors);
    }
    ptx::cp_async_wait<2>();
    __syncthreads();  // this tile's values are there; its keys are used up
    copy_keys(tile + 2);

    if (sees) {
#pragma unroll
      for (int step = 0; step < G::kKeyGroups; ++step) {
        add_weights(chunk.weights, weights[step]);
#pragma unroll
        for (int i = 0; i < G::kValues / 16; ++i)
          add_values<G::kValues>(chunk.values[2 * i], chunk.values[2 * i + 1], weights[step],
                                 shared.values[stage] + step * 16 * G::ValueRows::kRowBytes + i * 32);
      }
    }
    if ((tile + 1) % G::kChunkTiles == 0 || tile + 1 == start.end) {
      total.merge(chunk, a.scale);
      chunk.clear();
    }
  }

  const LaneColumns columns(a, rows, kv_head, warp_column);
  const float inverse[2] = {inverse_of(total.weights[0]), inverse_of(total.weights[2])};
#pragma unroll
  for (int j = 0; j < G::kValues / 8; ++j) {
#pragma unroll
    for (int row = 0; row < 2; ++row)
      columns.store<kHeadDim>(a, row, first_value + j * 8 + static_cast<int>(threadIdx.x) % 4 * 2,
                              __fmul_rn(total.values[j][2 * row], inverse[row]),
                              __fmul_rn(total.values[j][2 * row + 1], inverse[row]));
  }
}

}  // namespace

template <int kHeadDim>
void load_attention_prefill() {
  static_assert(sizeof(PrefillShared<kHeadDim>) <= kMostSharedBytes);
  load_kernel(attention_prefill_kernel<kHeadDim>, sizeof(PrefillShared<kHeadDim>), "attention");
}

template <int kHeadDim>
void launch_attention_prefill(Stream stream, const AttentionArguments& arguments, const AttentionPlan& plan) {
  const auto kernel = attention_prefill_kernel<kHeadDim>;
  constexpr int kBytes = sizeof(PrefillShared<kHeadDim>);
  load_attention_prefill<kHeadDim>();
  const dim3 grid(static_cast<unsigned>(plan.prefill_tiles),
                  static_cast<unsigned>(arguments.n_kv_heads * PrefillGeometry<kHeadDim>::kValueParts));
  kernel<<<grid, kThreads, kBytes, stream>>>(arguments);
  check_launch("attention (prefill)");
}

#define TRAMONTANE_INSTANTIATE(head_dim)            \
  template void load_attention_prefill<head_dim>(); \
  template void launch_attention_prefill<head_dim>(Stream, const AttentionArguments&, const AttentionPlan&);
TRAMONTANE_ATTENTION_HEAD_DIMS(TRAMONTANE_INSTANTIATE)

}  // namespace tramontane::cuda
