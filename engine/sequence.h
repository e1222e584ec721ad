// Sequence: one answer being written: its tokens so far, how many of them are in the KV cache, and in which
// blocks. Plain data; the scheduler decides on it, the engine fills it. Engine thread only once submitted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tramontane {

struct Sequence;

// Sequences of one request (n > 1) have the same prompt: one computes it, the others wait and then share its
// blocks.
struct SequenceGroup {
  const Sequence* computing = nullptr;  // has been admitted and is not through the prompt yet
  bool prompt_computed = false;
};

// Stands in `tokens` for one that the device has drawn and the host does not know yet.
inline constexpr int32_t kPendingToken = -1;

struct Sequence {
  uint64_t id = 0;       // order of arrival, unique
  int32_t priority = 0;  // lower runs first
  int32_t n_prompt = 0;
  std::vector<int32_t> tokens;     // prompt, then output; room for all of them is reserved at submit
  int32_t n_pending = 0;           // of them the last ones, not known yet (kPendingToken)
  int32_t n_computed = 0;          // tokens whose k and v are in the cache, or will be before any later step
  int32_t max_tokens = 0;          // output tokens at most; 0: the prompt is only scored
  bool scores_prompt = false;      // wants logits of the prompt's rows too (prompt_logprobs)
  int32_t n_scored = 0;            // prompt rows whose logits were delivered; row r tells of token r + 1
  SequenceGroup* group = nullptr;  // null: alone
  int32_t slot = -1;  // while it runs: its own place among max_sequences, for state on the device

  // Blocks: block i holds positions [i * kBlockTokens, (i + 1) * kBlockTokens). Kept by the block manager.
  std::vector<int32_t> blocks;  // room reserved at submit
  int32_t n_cached_blocks = 0;  // the first blocks that other sequences may find by their content
  uint64_t cache_root = 0;      // prefix cache entries are shared only between equal roots (cache_salt)
  uint64_t cache_parent = 0;    // content id of block n_cached_blocks - 1, or the root

  // For figures only.
  int32_t n_from_cache = 0;     // tokens that the newest admission found in the prefix cache
  int32_t n_ever_computed = 0;  // high-water mark of n_computed: what lies below it is computed again
  bool was_admitted = false;

  int32_t length() const { return static_cast<int32_t>(tokens.size()); }
  int32_t n_known() const { return length() - n_pending; }
  int32_t n_output() const { return length() - n_prompt; }
  // All that it may become is drawn, and its end only waits for being known: nothing is left to compute.
  bool awaits_end() const { return n_pending > 0 && n_output() == max_tokens; }
  // Prompt rows whose logits are wanted: each tells of the token after it, so the last one tells of no prompt
  // token.
  int32_t rows_to_score() const { return scores_prompt ? n_prompt - 1 : 0; }
  // Tokens that may come from the prefix cache: the last one must be computed for its logits, and so must
  // rows not yet scored.
  int32_t max_from_cache() const { return n_scored < rows_to_score() ? n_scored : length() - 1; }
};

// What runs first: the lower priority value, then the earlier arrival.
inline bool runs_before(const Sequence* a, const Sequence* b) {
  return a->priority != b->priority ? a->priority < b->priority : a->id < b->id;
}

}  // namespace tramontane
