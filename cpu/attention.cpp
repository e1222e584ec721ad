#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace tramontane {
namespace {

static_assert(kPageTokens == kBlockTokens);
constexpr int kPagesPerChunk = kAttentionChunk / kPageTokens;

// Fewer tiles than this many per thread are cut by chunk as well, or threads would idle behind the longest
// tile.
constexpr int kTilesPerThread = 4;
// Chunks in flight at once, per thread: enough to even out, few enough that their partials stay in cache.
constexpr int kSlotsPerThread = 8;

int32_t ceil_div(int32_t a, int32_t b) {
  return (a + b - 1) / b;
}

// total := the softmax over the keys of both. A partial that saw no key changes nothing, not even a bit.
void merge_query(float* total_max, float* total_sum, float* total_out, float max, float sum, const float* out,
                 int32_t n) {
  if (sum == 0.0f) return;
  if (*total_sum == 0.0f) {
    *total_max = max;
    *total_sum = sum;
    std::copy(out, out + n, total_out);
    return;
  }
  const float top = std::max(*total_max, max);
  const float keep = std::exp(*total_max - top), add = std::exp(max - top);
  for (int32_t d = 0; d < n; ++d) total_out[d] = total_out[d] * keep + out[d] * add;
  *total_sum = *total_sum * keep + sum * add;
  *total_max = top;
}

}  // namespace

class PagedAttention::TileCursor {
 public:
  explicit TileCursor(const Call& call) : call_(call) {}

  // Tile `index` of the batch; indices must not decrease from call to call.
  Tile at(int64_t index) {
    const int64_t row_tile = index / call_.tiles_per_row_tile;
    while (row_tile >= first_row_tile_ + row_tiles(sequence_)) first_row_tile_ += row_tiles(sequence_++);
    const auto in_row_tile = static_cast<int32_t>(index % call_.tiles_per_row_tile);
    return make_tile(static_cast<int32_t>(row_tile - first_row_tile_), in_row_tile);
  }

  static int64_t count(const Call& call) {
    const TileCursor cursor(call);
    int64_t row_tiles = 0;
    for (int32_t s = 0; s < call.batch->n_seqs; ++s) row_tiles += cursor.row_tiles(s);
    return row_tiles * call.tiles_per_row_tile;
  }

 private:
  int32_t first_row(int32_t sequence) const { return call_.batch->q_starts.row<int32_t>(0)[sequence]; }
  int32_t row_tiles(int32_t sequence) const {
    return ceil_div(first_row(sequence + 1) - first_row(sequence), call_.rows_per_tile);
  }

  Tile make_tile(int32_t row_tile, int32_t in_row_tile) const {
    const AttentionShape& shape = call_.shape;
    const int32_t group = shape.n_heads / shape.n_kv_heads;
    Tile tile{};
    tile.sequence = sequence_;
    tile.first_row = first_row(sequence_) + row_tile * call_.rows_per_tile;
    tile.n_rows = std::min(call_.rows_per_tile, first_row(sequence_ + 1) - tile.first_row);
    tile.kv_head = in_row_tile / call_.head_tiles;
    const int32_t first_of_group = in_row_tile % call_.head_tiles * call_.heads_per_tile;
    tile.first_head = tile.kv_head * group + first_of_group;
    tile.n_heads = std::min(call_.heads_per_tile, group - first_of_group);
    const int32_t* positions = call_.batch->positions.row<int32_t>(0);
    const int32_t first_position = positions[tile.first_row];
    const int32_t window = shape.sliding_window;
    const int32_t first_key = window > 0 ? std::max(0, first_position - window + 1) : 0;
    tile.first_chunk = first_key / kAttentionChunk;
    tile.last_chunk = (first_position + tile.n_rows - 1) / kAttentionChunk + 1;
    return tile;
  }

  const Call& call_;
  int32_t sequence_ = 0;
  int64_t first_row_tile_ = 0;  // of sequence_, counted over the batch
};

PagedAttention::PagedAttention(const CpuKernels& kernels, DType act_dtype, ThreadPool& pool)
    : kernels_(kernels), act_dtype_(act_dtype), pool_(pool) {
  const auto threads = static_cast<size_t>(pool.size());
  work_.resize(threads);
  tiles_.resize(threads * kTilesPerThread);
  totals_.resize(threads * kTilesPerThread);
  slots_.resize(threads * kSlotsPerThread);
}

void PagedAttention::reserve(int32_t head_dim) {
  if (head_dim <= head_dim_) return;
  const auto heads = size_t{kAttentionQueries} * static_cast<size_t>(ceil_div(head_dim, 16) * 16);
  const size_t partial = heads + 2 * kAttentionQueries;
  const size_t workspace = heads + size_t{kAttentionQueries} * kAttentionChunk + 2 * partial;
  const size_t floats = work_.size() * workspace + (totals_.size() + slots_.size()) * partial;
  memory_ = allocate_aligned(floats * sizeof(float), "attention scratch");
  auto* next = reinterpret_cast<float*>(memory_.data());
  const auto take = [&next](size_t count) { return std::exchange(next, next + count); };
  const auto take_partial = [&] {
    return Partial{take(kAttentionQueries), take(kAttentionQueries), take(heads)};
  };
  for (Workspace& work : work_) {
    work.q = take(heads);
    work.scores = take(size_t{kAttentionQueries} * kAttentionChunk);
    work.chunk = take_partial();
    work.total = take_partial();
  }
  for (Partial& total : totals_) total = take_partial();
  for (Partial& slot : slots_) slot = take_partial();
  head_dim_ = head_dim;
}

void PagedAttention::run(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                         TensorView out) {
  reserve(shape.head_dim);
  const int32_t group = shape.n_heads / shape.n_kv_heads;
  Call call{qkv, out, &batch, shape, kv, 1, 1, 1, 1};
  call.heads_per_tile = std::min(group, kAttentionQueries);
  call.head_tiles = ceil_div(group, call.heads_per_tile);
  call.rows_per_tile = kAttentionQueries / call.heads_per_tile;
  call.tiles_per_row_tile = shape.n_kv_heads * call.head_tiles;
  const int64_t n_tiles = TileCursor::count(call);
  const bool few = n_tiles < static_cast<int64_t>(tiles_.size());
  if (few && pool_.size() > 1 && batch.max_kv > kAttentionChunk) {
    run_by_chunk(call, static_cast<int32_t>(n_tiles));
  } else {
    run_by_tile(call, n_tiles);
  }
}

// Each tile start to end on one thread; threads take the next tile as they finish one.
void PagedAttention::run_by_tile(const Call& call, int64_t n_tiles) {
  next_.store(0, std::memory_order_relaxed);
  pool_.run([&](int thread) {
    const Workspace& work = work_[static_cast<size_t>(thread)];
    TileCursor cursor(call);
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_tiles;) {
      const Tile tile = cursor.at(i);
      std::fill_n(work.total.sum, tile.n_queries(), 0.0f);
      for (int32_t chunk = tile.first_chunk; chunk < tile.last_chunk; ++chunk) {
        compute_chunk(call, tile, chunk, work, work.chunk);
        merge(call, tile, work.chunk, work.total);
      }
      store(call, tile, work.total);
    }
  });
}

// Few tiles, long contexts: the chunks of all tiles are numbered through and computed in waves of
// slots_.size(), each merged in order.
void PagedAttention::run_by_chunk(const Call& call, int32_t n_tiles) {
  const auto wave = static_cast<int64_t>(slots_.size());
  const int64_t n_units = list_tiles(call, n_tiles);
  for (int64_t first = 0; first < n_units; first += wave) {
    const int64_t last = std::min(n_units, first + wave);
    next_.store(first, std::memory_order_relaxed);
    pool_.run([&](int thread) {
      const Workspace& work = work_[static_cast<size_t>(thread)];
      for (int64_t unit; (unit = next_.fetch_add(1, std::memory_order_relaxed)) < last;) {
        const Tile& tile = tiles_[tile_of_unit(unit, n_tiles)];
        const auto chunk = static_cast<int32_t>(tile.first_chunk + (unit - tile.first_unit));
        compute_chunk(call, tile, chunk, work, slots_[static_cast<size_t>(unit - first)]);
      }
    });
    for (int64_t unit = first; unit < last; ++unit) {
      const size_t tile = tile_of_unit(unit, n_tiles);
      merge(call, tiles_[tile], slots_[static_cast<size_t>(unit - first)], totals_[tile]);
    }
  }
  for (size_t i = 0; i < static_cast<size_t>(n_tiles); ++i) store(call, tiles_[i], totals_[i]);
}

// Fills tiles_ and empties totals_; returns the number of (tile, chunk) units.
int64_t PagedAttention::list_tiles(const Call& call, int32_t n_tiles) {
  TileCursor cursor(call);
  int64_t n_units = 0;
  for (int32_t i = 0; i < n_tiles; ++i) {
    Tile& tile = tiles_[static_cast<size_t>(i)] = cursor.at(i);
    tile.first_unit = n_units;
    n_units += tile.last_chunk - tile.first_chunk;
    std::fill_n(totals_[static_cast<size_t>(i)].sum, tile.n_queries(), 0.0f);
  }
  return n_units;
}

size_t PagedAttention::tile_of_unit(int64_t unit, int32_t n_tiles) const {
  const auto after = std::upper_bound(tiles_.begin(), tiles_.begin() + n_tiles, unit,
                                      [](int64_t u, const Tile& tile) { return u < tile.first_unit; });
  return static_cast<size_t>(after - tiles_.begin()) - 1;
}

// The tile's query vectors, one after the other: row by row, head by head, scaled for the softmax.
void PagedAttention::load_queries(const Call& call, const Tile& tile, float* q) const {
  const int32_t head_dim = call.shape.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  const int64_t width = int64_t{tile.n_heads} * head_dim;
  for (int32_t r = 0; r < tile.n_rows; ++r) {
    const float* heads = call.qkv.row<float>(tile.first_row + r) + int64_t{tile.first_head} * head_dim;
    for (int64_t i = 0; i < width; ++i) *q++ = heads[i] * scale;
  }
}

void PagedAttention::compute_chunk(const Call& call, const Tile& tile, int32_t chunk, const Workspace& work,
                                   const Partial& result) const {
  load_queries(call, tile, work.q);
  // The part of this chunk that each query sees, and that any sees.
  int32_t begin[kAttentionQueries], end[kAttentionQueries];
  const int32_t first_key = chunk * kAttentionChunk, window = call.shape.sliding_window;
  const int32_t* positions = call.batch->positions.row<int32_t>(0) + tile.first_row;
  for (int32_t i = 0; i < tile.n_queries(); ++i) {
    const int32_t position = positions[i / tile.n_heads];
    begin[i] = window > 0 ? std::clamp(position - window + 1 - first_key, 0, kAttentionChunk) : 0;
    end[i] = std::clamp(position + 1 - first_key, 0, kAttentionChunk);
  }
  const int32_t first_page = begin[0] / kPageTokens;
  const int32_t last_page = ceil_div(end[tile.n_queries() - 1], kPageTokens);

  const void* k_pages[kPagesPerChunk] = {};
  const void* v_pages[kPagesPerChunk] = {};
  const int64_t head_page =
      int64_t{kPageTokens} * call.shape.head_dim * static_cast<int64_t>(size_of(act_dtype_));
  const int32_t* blocks =
      call.batch->block_table.row<int32_t>(tile.sequence) + int64_t{chunk} * kPagesPerChunk;
  for (int32_t page = first_page; page < last_page; ++page) {
    const int64_t block = int64_t{blocks[page]} * 2 * call.shape.n_kv_heads;
    k_pages[page] = call.kv.data + (block + tile.kv_head) * head_page;
    v_pages[page] = call.kv.data + (block + call.shape.n_kv_heads + tile.kv_head) * head_page;
  }
  kernels_.attention({work.q, k_pages, v_pages, begin, end, work.scores, result.max, result.sum, result.out,
                      tile.n_queries(), call.shape.head_dim});
}

void PagedAttention::merge(const Call& call, const Tile& tile, const Partial& chunk, const Partial& total) {
  const int32_t n = call.shape.head_dim;
  for (int32_t i = 0; i < tile.n_queries(); ++i) {
    const int64_t at = int64_t{i} * n;
    merge_query(total.max + i, total.sum + i, total.out + at, chunk.max[i], chunk.sum[i], chunk.out + at, n);
  }
}

void PagedAttention::store(const Call& call, const Tile& tile, const Partial& total) const {
  const int32_t n = call.shape.head_dim;
  for (int32_t i = 0; i < tile.n_queries(); ++i) {
    const int64_t row = tile.first_row + i / tile.n_heads;
    const int64_t column = int64_t{tile.first_head + i % tile.n_heads} * n;
    const float* sums = total.out + int64_t{i} * n;
    const float scale = 1.0f / total.sum[i];
    if (act_dtype_ == DType::f32) {
      float* out = call.out.row<float>(row) + column;
      for (int32_t d = 0; d < n; ++d) out[d] = sums[d] * scale;
    } else {
      uint16_t* out = call.out.row<uint16_t>(row) + column;
      for (int32_t d = 0; d < n; ++d) out[d] = float_to_bf16(sums[d] * scale);
    }
  }
}

}  // namespace tramontane
