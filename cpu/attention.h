// PagedAttention: cuts a step's attention into tiles and chunks of keys, shares them out among threads and
// merges the partial results. Engine thread only.
//
// Keys are cut at multiples of kAttentionChunk of the absolute position, each chunk gives a partial softmax
// per query, and partials are merged in ascending order. So a row's result depends on its own q, keys and
// position alone (decision 5), whoever computes what.
#pragma once

#include <atomic>
#include <vector>

#include "cpu/aligned_buffer.h"
#include "cpu/kernels.h"
#include "cpu/thread_pool.h"
#include "engine/backend/backend.h"

namespace tramontane {

class PagedAttention {
 public:
  PagedAttention(const CpuKernels& kernels, DType act_dtype, ThreadPool& pool);

  // See Backend::attention; arguments are already checked. Allocates only when head_dim is larger than ever
  // before.
  void run(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv, TensorView out);

 private:
  // Some rows of one sequence x some query heads of one kv head: at most kAttentionQueries query vectors.
  struct Tile {
    int32_t sequence, first_row, n_rows, first_head, n_heads, kv_head;
    int32_t first_chunk, last_chunk;  // chunks that any row sees: [first, last)
    int64_t first_unit;               // by chunk: the number of its first chunk, counted over all tiles
    int32_t n_queries() const { return n_rows * n_heads; }
  };
  // A softmax under way for each query of a tile.
  struct Partial {
    float* max;  // [kAttentionQueries]
    float* sum;  // [kAttentionQueries]
    float* out;  // [kAttentionQueries, head_dim]
  };
  // One thread's memory.
  struct Workspace {
    float* q;       // [kAttentionQueries, head_dim]
    float* scores;  // [kAttentionQueries, kAttentionChunk]
    Partial chunk, total;
  };
  // What run() was called with, and how it is cut.
  struct Call {
    TensorView qkv, out;
    const BatchView* batch;
    AttentionShape shape;
    KvLayer kv;
    int32_t rows_per_tile, heads_per_tile, head_tiles;  // head_tiles: of one kv head
    int32_t tiles_per_row_tile;                         // n_kv_heads * head_tiles
  };
  // Walks the row tiles of a batch in ascending order without a list of them.
  class TileCursor;

  void reserve(int32_t head_dim);
  void run_by_tile(const Call& call, int64_t n_tiles);
  void run_by_chunk(const Call& call, int32_t n_tiles);
  int64_t list_tiles(const Call& call, int32_t n_tiles);
  size_t tile_of_unit(int64_t unit, int32_t n_tiles) const;
  void load_queries(const Call& call, const Tile& tile, float* q) const;
  void compute_chunk(const Call& call, const Tile& tile, int32_t chunk, const Workspace& work,
                     const Partial& result) const;
  static void merge(const Call& call, const Tile& tile, const Partial& chunk, const Partial& total);
  void store(const Call& call, const Tile& tile, const Partial& total) const;

  const CpuKernels& kernels_;
  const DType act_dtype_;
  ThreadPool& pool_;
  int32_t head_dim_ = 0;  // what the memory below is made for
  Buffer memory_;
  std::vector<Workspace> work_;  // [threads]
  std::vector<Tile> tiles_;      // by chunk: tiles of this call, and the merged result of each
  std::vector<Partial> totals_;
  std::vector<Partial> slots_;     // by chunk: results of one wave
  std::atomic<int64_t> next_ = 0;  // the next piece of work that a thread takes
};

}  // namespace tramontane
