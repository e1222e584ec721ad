// BlockManager: which KV blocks are free, used (and by how many), or hold a prefix that may be asked for
// again. It manages ids, not memory, and never allocates after construction. Engine thread only.
//
// Prefix cache: a full block is named by (content id of the block before it, its 16 tokens); content ids are
// never used twice and the first block's parent is the root of its cache_salt. Names are compared exactly,
// not by hash alone, so by induction along the chain equal names mean equal prefixes and a collision can
// never return another prompt's keys.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/sequence.h"

namespace tramontane {

class BlockManager {
 public:
  explicit BlockManager(int32_t n_blocks);

  int32_t n_blocks() const { return n_blocks_; }
  // Blocks that allocate() can give: never used, or cached and used by nobody.
  int32_t n_available() const { return static_cast<int32_t>(free_.size()) + n_idle_; }
  static int32_t blocks_for(int32_t n_tokens) { return (n_tokens + kBlockTokens - 1) / kBlockTokens; }

  // The root for a salt. Remembers a bounded number of salts; a forgotten one merely starts with an empty
  // cache. May allocate: not on the step path.
  uint64_t root_of(std::string_view salt);
  // A root that nobody else gets.
  uint64_t new_root() { return next_content_++; }

  // Full blocks of the sequence's tokens that the cache holds, at most max_from_cache() tokens, and how many
  // of them are idle (taking them lowers n_available).
  struct Prefix {
    int32_t n_blocks = 0, n_idle = 0;
  };
  Prefix find_prefix(const Sequence& sequence) const;
  // Takes the first `prefix.n_blocks` cached blocks and new ones up to `n_tokens` tokens, for a sequence
  // without blocks. Stops (CHECK) when there are too few: the caller has compared with n_available().
  void admit(Sequence& sequence, const Prefix& prefix, int32_t n_tokens);
  // One more block; false when none is available.
  bool grow(Sequence& sequence);
  // Makes full blocks whose tokens are all computed and known findable.
  void cache_computed(Sequence& sequence);
  // Gives every block back; cached ones stay findable until they are needed, the longest prefix's end going
  // first.
  void release(Sequence& sequence);
  // Nobody finds the sequence's text again, nor what was computed after it, until it is computed anew: what
  // its blocks hold is not to be trusted. Also the part that it found itself, and of a sequence without
  // blocks. Who shares them keeps them.
  void forget_text(const Sequence& sequence);

  // One user, and not findable: it may be written.
  bool is_own(int32_t id) const { return blocks_[id].references == 1 && blocks_[id].content == 0; }

  // Stops (CHECK) unless free + idle + used == total and every list and count agrees with `sequences`, all
  // that hold blocks.
  void check(std::span<const Sequence* const> sequences) const;

 private:
  struct Block {
    int32_t references = 0;
    uint64_t parent = 0, content = 0;  // content 0: not findable
    int32_t tokens[kBlockTokens] = {};
    int32_t next_in_bucket = -1;
    int32_t older = -1, newer = -1;  // idle list
  };

  size_t bucket_of(uint64_t parent, const int32_t* tokens) const;
  int32_t find(uint64_t parent, const int32_t* tokens) const;
  int32_t take();           // a block without references and without content
  void forget(int32_t id);  // no longer findable
  void push_idle(int32_t id);
  void remove_idle(int32_t id);

  int32_t n_blocks_;
  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // not findable, not used; the last one goes first
  int32_t oldest_idle_ = -1, newest_idle_ = -1, n_idle_ = 0;  // findable, not used; least recently used first
  std::vector<int32_t> buckets_;
  uint64_t hash_seed_;
  uint64_t next_content_ = 1;
  std::unordered_map<std::string, uint64_t> roots_;
  mutable std::vector<int32_t> counted_;  // check()'s own: it runs after every step in debug builds
};

}  // namespace tramontane
