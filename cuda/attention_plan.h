// AttentionPlan: how one call of launch_attention shares its work out. No choice here changes a bit of the
// result (attention.h), so tests run the same batch under many plans. Host code; any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/attention.h"

namespace tramontane::cuda {

// Keys of one partial softmax; chunks start at multiples of it. 256: a 7B sequence of 1,000 keys is spread
// over 4 x 8 blocks, and a partial result is 1.6 % of the keys and values that it stands for.
inline constexpr int32_t kAttentionChunk = 256;

// A "column" is one query vector: row r and head h of a kv head's group are column r * group + h.
inline constexpr int32_t kDecodeTile = 16;    // columns of a decode block: one m16 tile
inline constexpr int32_t kPrefillTile = 128;  // columns of a prefill block: 8 warps of one m16 tile each

struct AttentionPlan {
  // Sequences of at most so many columns are decoded (blocks share a sequence's keys), those of more are
  // prefilled (a block walks all keys of its columns).
  int32_t decode_columns = 0;
  int32_t decode_tiles = 0;   // tiles of kDecodeTile columns of the largest decoded sequence; 0: none
  int32_t splits = 0;         // blocks that share the chunks of one tile
  int32_t prefill_tiles = 0;  // bound of all sequences' tiles of kPrefillTile columns; 0: none
  // Room for partial results: so many chunks of one tile, of `partial_rows` columns and all kv heads each. A
  // sequence that finds no room is walked by one block of each tile.
  int32_t max_partials = 0;
  int32_t partial_rows = 0;
};

// The plan of a batch, of host scalars alone.
AttentionPlan plan_attention(const AttentionShape& shape, const BatchView& batch);

// launch_attention under a plan.
void launch_attention(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                      KvLayer kv, TensorView out, std::byte* workspace, const AttentionPlan& plan);

}  // namespace tramontane::cuda
