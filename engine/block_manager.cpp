#include "engine/block_manager.h"

#include <algorithm>
#include <bit>
#include <random>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Salts remembered at a time. Beyond it all are forgotten: their entries age out like any unused block.
constexpr size_t kMaxRoots = 4096;

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

BlockManager::BlockManager(int32_t n_blocks) : n_blocks_(n_blocks) {
  CHECK_GE(n_blocks, 1);
  blocks_.resize(static_cast<size_t>(n_blocks));
  free_.reserve(blocks_.size());
  counted_.reserve(blocks_.size());
  for (int32_t id = n_blocks - 1; id >= 0; --id) free_.push_back(id);
  buckets_.assign(std::bit_ceil(2 * blocks_.size()), -1);
  // Only speed depends on the hash; a seed that clients cannot know keeps them from filling one bucket on
  // purpose.
  hash_seed_ = (uint64_t{std::random_device{}()} << 32) | std::random_device{}();
}

uint64_t BlockManager::root_of(std::string_view salt) {
  const auto known = roots_.find(std::string(salt));
  if (known != roots_.end()) return known->second;
  if (roots_.size() >= kMaxRoots) roots_.clear();
  return roots_.emplace(salt, new_root()).first->second;
}

size_t BlockManager::bucket_of(uint64_t parent, const int32_t* tokens) const {
  uint64_t hash = mix(parent ^ hash_seed_);
  for (int i = 0; i < kBlockTokens; ++i)
    hash = mix(hash + static_cast<uint32_t>(tokens[i]) + 0x9e3779b97f4a7c15u);
  return hash & (buckets_.size() - 1);
}

int32_t BlockManager::find(uint64_t parent, const int32_t* tokens) const {
  int32_t id = buckets_[bucket_of(parent, tokens)];
  while (id >= 0) {
    const Block& block = blocks_[id];
    if (block.parent == parent && std::equal(block.tokens, block.tokens + kBlockTokens, tokens)) return id;
    id = block.next_in_bucket;
  }
  return -1;
}

BlockManager::Prefix BlockManager::find_prefix(const Sequence& sequence) const {
  Prefix prefix;
  uint64_t parent = sequence.cache_root;
  const int32_t limit = std::min(sequence.max_from_cache() / kBlockTokens, n_blocks_);
  while (prefix.n_blocks < limit) {
    const int32_t id = find(parent, sequence.tokens.data() + prefix.n_blocks * kBlockTokens);
    if (id < 0) break;
    parent = blocks_[id].content;
    prefix.n_idle += blocks_[id].references == 0;
    ++prefix.n_blocks;
  }
  return prefix;
}

void BlockManager::admit(Sequence& sequence, const Prefix& prefix, int32_t n_tokens) {
  CHECK(sequence.blocks.empty(), "an admitted sequence has no blocks yet");
  sequence.cache_parent = sequence.cache_root;
  for (int32_t i = 0; i < prefix.n_blocks; ++i) {
    const int32_t id = find(sequence.cache_parent, sequence.tokens.data() + i * kBlockTokens);
    CHECK_GE(id, 0);
    Block& block = blocks_[id];
    if (block.references++ == 0) remove_idle(id);
    sequence.cache_parent = block.content;
    sequence.blocks.push_back(id);
  }
  sequence.n_cached_blocks = prefix.n_blocks;
  sequence.n_computed = prefix.n_blocks * kBlockTokens;
  while (static_cast<int32_t>(sequence.blocks.size()) < blocks_for(n_tokens)) {
    CHECK(grow(sequence), "admit: out of blocks");
  }
}

bool BlockManager::grow(Sequence& sequence) {
  if (n_available() == 0) return false;
  const int32_t id = take();
  blocks_[id].references = 1;
  sequence.blocks.push_back(id);
  return true;
}

int32_t BlockManager::take() {
  if (!free_.empty()) {
    const int32_t id = free_.back();
    free_.pop_back();
    return id;
  }
  const int32_t id = oldest_idle_;
  remove_idle(id);
  forget(id);
  return id;
}

void BlockManager::cache_computed(Sequence& sequence) {
  const int32_t n_tokens = std::min(sequence.n_computed, sequence.n_known());
  while ((sequence.n_cached_blocks + 1) * kBlockTokens <= n_tokens) {
    const int32_t* tokens = sequence.tokens.data() + sequence.n_cached_blocks * kBlockTokens;
    // When another sequence computed the same block meanwhile, that one stays the findable one and ours lives
    // only with us.
    int32_t id = find(sequence.cache_parent, tokens);
    if (id < 0) {
      id = sequence.blocks[sequence.n_cached_blocks];
      Block& block = blocks_[id];
      block.parent = sequence.cache_parent;
      block.content = next_content_++;
      std::copy(tokens, tokens + kBlockTokens, block.tokens);
      int32_t& head = buckets_[bucket_of(block.parent, block.tokens)];
      block.next_in_bucket = head;
      head = id;
    }
    sequence.cache_parent = blocks_[id].content;
    ++sequence.n_cached_blocks;
  }
}

void BlockManager::release(Sequence& sequence) {
  // From the end: the tail of a prefix is useless without its start, so it is evicted first.
  for (auto id = sequence.blocks.rbegin(); id != sequence.blocks.rend(); ++id) {
    Block& block = blocks_[*id];
    CHECK_GE(block.references, 1);
    if (--block.references > 0) continue;
    if (block.content != 0) {
      push_idle(*id);
    } else {
      free_.push_back(*id);
    }
  }
  sequence.blocks.clear();
  sequence.n_cached_blocks = 0;
  sequence.n_computed = 0;
}

// By name, since the blocks may be given back already, and since one that came from the cache may be the bad
// one. What other texts have named after a forgotten block is out of reach: its content id never comes again.
void BlockManager::forget_text(const Sequence& sequence) {
  uint64_t parent = sequence.cache_root;
  for (int32_t first = 0; first + kBlockTokens <= sequence.n_known(); first += kBlockTokens) {
    const int32_t id = find(parent, sequence.tokens.data() + first);
    if (id < 0) return;
    parent = blocks_[id].content;
    if (blocks_[id].references == 0) {
      remove_idle(id);
      free_.push_back(id);
    }
    forget(id);
  }
}

void BlockManager::forget(int32_t id) {
  Block& block = blocks_[id];
  int32_t* link = &buckets_[bucket_of(block.parent, block.tokens)];
  while (*link != id) {
    CHECK_GE(*link, 0);
    link = &blocks_[*link].next_in_bucket;
  }
  *link = block.next_in_bucket;
  block.next_in_bucket = -1;
  block.content = 0;
}

void BlockManager::push_idle(int32_t id) {
  blocks_[id].older = newest_idle_;
  blocks_[id].newer = -1;
  (newest_idle_ >= 0 ? blocks_[newest_idle_].newer : oldest_idle_) = id;
  newest_idle_ = id;
  ++n_idle_;
}

void BlockManager::remove_idle(int32_t id) {
  const Block& block = blocks_[id];
  (block.older >= 0 ? blocks_[block.older].newer : oldest_idle_) = block.newer;
  (block.newer >= 0 ? blocks_[block.newer].older : newest_idle_) = block.older;
  --n_idle_;
}

void BlockManager::check(std::span<const Sequence* const> sequences) const {
  std::vector<int32_t>& references = counted_;
  references.assign(blocks_.size(), 0);
  for (const Sequence* sequence : sequences) {
    CHECK_LE(sequence->n_computed, sequence->length());
    CHECK_LE(sequence->n_computed, static_cast<int32_t>(sequence->blocks.size()) * kBlockTokens);
    for (const int32_t id : sequence->blocks) ++references[id];
  }
  int32_t used = 0;
  for (int32_t id = 0; id < n_blocks_; ++id) {
    CHECK_EQ(blocks_[id].references, references[id]);
    used += references[id] > 0;
  }
  int32_t idle = 0;
  for (int32_t id = oldest_idle_; id >= 0; id = blocks_[id].newer, ++idle) {
    CHECK_EQ(blocks_[id].references, 0);
    CHECK(blocks_[id].content != 0 && find(blocks_[id].parent, blocks_[id].tokens) == id,
          "an idle block is findable");
  }
  CHECK_EQ(idle, n_idle_);
  CHECK_EQ(static_cast<int32_t>(free_.size()) + idle + used, n_blocks_);
}

}  // namespace tramontane
