#include "engine/block_manager.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>

#include "engine/scheduler.h"

namespace tramontane {
namespace {

Sequence make_sequence(BlockManager& blocks, std::vector<int32_t> tokens, std::string_view salt = "") {
  Sequence sequence;
  sequence.n_prompt = static_cast<int32_t>(tokens.size());
  sequence.tokens = std::move(tokens);
  sequence.cache_root = blocks.root_of(salt);
  return sequence;
}

std::vector<int32_t> iota_tokens(int32_t n, int32_t first = 0) {
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t i = 0; i < n; ++i) tokens[i] = first + i;
  return tokens;
}

void compute_all(BlockManager& blocks, Sequence& sequence) {
  blocks.admit(sequence, blocks.find_prefix(sequence), sequence.length());
  sequence.n_computed = sequence.length();
  blocks.cache_computed(sequence);
}

TEST(BlockManager, EvictsTheLeastRecentlyUsedTailFirst) {
  BlockManager blocks(4);
  Sequence a = make_sequence(blocks, iota_tokens(33)), b = make_sequence(blocks, iota_tokens(17, 1000));
  compute_all(blocks, a);  // 2 full blocks and a begun one
  blocks.release(a);
  EXPECT_EQ(blocks.n_available(), 4);
  compute_all(blocks, b);  // needs 2: the two blocks without content
  EXPECT_EQ(blocks.find_prefix(a).n_blocks, 2);
  ASSERT_TRUE(blocks.grow(b));
  EXPECT_EQ(blocks.find_prefix(a).n_blocks, 1) << "the end of the prefix goes before its start";
  ASSERT_TRUE(blocks.grow(b));
  EXPECT_EQ(blocks.find_prefix(a).n_blocks, 0);
  EXPECT_FALSE(blocks.grow(b));
}

TEST(BlockManager, AChildIsNotFoundUnderAnotherParent) {
  BlockManager blocks(16);
  std::vector<int32_t> one = iota_tokens(33), other = iota_tokens(33);
  other[3] = 77;  // the first block differs, the second has the same tokens
  Sequence a = make_sequence(blocks, one), b = make_sequence(blocks, other),
           c = make_sequence(blocks, one, "salt");
  compute_all(blocks, a);
  EXPECT_EQ(blocks.find_prefix(a).n_blocks, 2);
  EXPECT_EQ(blocks.find_prefix(b).n_blocks, 0);
  EXPECT_EQ(blocks.find_prefix(c).n_blocks, 0);
}

// Tables of 4 places: other salts' blocks share a bucket in a quarter of the tries.
TEST(BlockManager, SharingABucketIsNotBeingFound) {
  for (int i = 0; i < 200; ++i) {
    BlockManager blocks(2);
    Sequence a = make_sequence(blocks, iota_tokens(17)), b = make_sequence(blocks, iota_tokens(17), "salt"),
             c = make_sequence(blocks, iota_tokens(17, 1));
    compute_all(blocks, a);
    ASSERT_EQ(blocks.find_prefix(a).n_blocks, 1);
    ASSERT_EQ(blocks.find_prefix(b).n_blocks + blocks.find_prefix(c).n_blocks, 0);
  }
}

TEST(BlockManager, TwoThatComputedTheSameKeepOneFindableCopy) {
  BlockManager blocks(16);
  Sequence a = make_sequence(blocks, iota_tokens(48)), b = a;
  blocks.admit(a, {}, 48);
  blocks.admit(b, {}, 48);
  for (Sequence* sequence : {&a, &b}) {
    sequence->n_computed = 48;
    blocks.cache_computed(*sequence);
  }
  const std::vector<const Sequence*> both = {&a, &b};
  blocks.check(both);
  blocks.release(b);
  Sequence c = make_sequence(blocks, iota_tokens(49));
  blocks.admit(c, blocks.find_prefix(c), 49);
  EXPECT_EQ(std::vector<int32_t>(c.blocks.begin(), c.blocks.begin() + 3), a.blocks);
}

// 3 texts begin alike; one of them is not to be trusted, while it runs or after it gave its blocks back.
TEST(BlockManager, AForgottenTextIsFoundByNobody) {
  for (const bool runs : {true, false}) {
    BlockManager blocks(16);
    std::vector<int32_t> longer = iota_tokens(65), other = iota_tokens(65);
    other[20] = 77;
    Sequence a = make_sequence(blocks, iota_tokens(49)), b = make_sequence(blocks, longer),
             c = make_sequence(blocks, other), stranger = make_sequence(blocks, iota_tokens(49, 500));
    for (Sequence* sequence : {&a, &b, &c, &stranger}) compute_all(blocks, *sequence);
    blocks.release(stranger);
    if (!runs) blocks.release(a);
    blocks.release(c);
    blocks.forget_text(a);
    for (const Sequence* sequence : {&a, &b, &c}) EXPECT_EQ(blocks.find_prefix(*sequence).n_blocks, 0);
    EXPECT_EQ(blocks.find_prefix(stranger).n_blocks, 3);
    if (runs) {
      blocks.check(std::vector<const Sequence*>{&a, &b});
      blocks.release(a);
    }
    blocks.check(std::vector<const Sequence*>{&b});
    blocks.release(b);
    blocks.check({});
    EXPECT_EQ(blocks.n_available(), 16);
    compute_all(blocks, b);
    EXPECT_EQ(blocks.find_prefix(a).n_blocks, 3) << "computed anew";
    blocks.check(std::vector<const Sequence*>{&b});
  }
}

TEST(BlockManager, ManySaltsStayBoundedAndApart) {
  BlockManager blocks(2);
  std::set<uint64_t> roots;
  for (int i = 0; i < 10000; ++i) roots.insert(blocks.root_of("salt " + std::to_string(i)));
  EXPECT_EQ(roots.size(), 10000u);
}

// A seeded random load through the scheduler: short and long prompts with shared beginnings, siblings,
// cancellations at any time, few blocks. After each step every count agrees, no block that is written is
// shared, and what the cache gives has the right tokens.
struct Totals {
  int finished = 0, preempted = 0, from_cache = 0;
};

void run_random_load(uint32_t seed, Totals& totals) {
  std::mt19937 random(seed);
  const auto below = [&](int32_t n) { return static_cast<int32_t>(random() % static_cast<uint32_t>(n)); };
  const int32_t n_blocks = 8 + below(40), max_length = n_blocks * kBlockTokens;
  const int32_t most = 1 + below(8);
  BlockManager blocks(n_blocks);
  Scheduler scheduler({.step_tokens = 1 + below(64), .max_sequences = most, .max_logits = most + below(8)},
                      blocks);
  struct Load {
    Sequence sequence;
    std::shared_ptr<SequenceGroup> group;
    int32_t n_output = 0;
  };
  std::map<uint64_t, std::unique_ptr<Load>> live;  // by id: an order by address would differ from run to run
  std::map<int32_t, std::vector<int32_t>>
      stored;  // what each block's slots hold: position-independent stand-in for k and v
  uint64_t next_id = 0;

  for (int step = 0; step < 1500; ++step) {
    if (live.size() < 12 && below(3) == 0) {
      const int32_t n = 1 + (below(4) == 0) * below(3);
      const int32_t prompt = 1 + below(max_length / 2), content = below(3) * 1000, output = 1 + below(40);
      auto group = std::make_shared<SequenceGroup>();
      for (int32_t i = 0; i < n; ++i) {
        auto load = std::make_unique<Load>();
        load->sequence = make_sequence(blocks, iota_tokens(prompt, content), below(2) == 0 ? "" : "b");
        load->sequence.id = next_id++;
        load->sequence.max_tokens = output;
        load->sequence.scores_prompt = i == 0 && below(5) == 0;
        load->sequence.group = n > 1 ? group.get() : nullptr;
        load->group = group;
        scheduler.add(&load->sequence);
        live.emplace(load->sequence.id, std::move(load));
      }
    }
    if (!live.empty() && below(20) == 0) {  // somebody hangs up
      auto victim = std::next(live.begin(), below(static_cast<int32_t>(live.size())));
      if (below(2) == 0) scheduler.distrust(victim->second->sequence);
      scheduler.finish(&victim->second->sequence);
      live.erase(victim);
    }
    const SchedulePlan& plan = scheduler.plan();
    ASSERT_TRUE(live.empty() || !plan.chunks.empty()) << "work, but nothing to do";
    totals.preempted += static_cast<int>(plan.preempted.size());
    for (const Sequence* sequence : plan.admitted) totals.from_cache += sequence->n_from_cache;
    std::vector<Sequence*> done;
    for (const Chunk& chunk : plan.chunks) {
      Sequence& sequence = *chunk.sequence;
      for (int32_t p = sequence.n_computed; p < sequence.n_computed + chunk.n_tokens; ++p) {
        const int32_t block = sequence.blocks[p / kBlockTokens];
        ASSERT_TRUE(blocks.is_own(block));
        stored[block].resize(kBlockTokens);
        stored[block][p % kBlockTokens] = sequence.tokens[p];
      }
      scheduler.advance(chunk);
      for (int32_t p = 0; p < sequence.n_computed; ++p) {
        ASSERT_EQ(stored[sequence.blocks[p / kBlockTokens]][p % kBlockTokens], sequence.tokens[p])
            << "position " << p;
      }
      if (chunk.samples) {
        scheduler.learn(sequence, below(3));
        if (sequence.n_output() == sequence.max_tokens || sequence.length() == max_length)
          done.push_back(&sequence);
      }
    }
    for (Sequence* sequence : done) {
      scheduler.finish(sequence);
      live.erase(sequence->id);
      ++totals.finished;
    }
    std::vector<const Sequence*> running(scheduler.running().begin(), scheduler.running().end());
    blocks.check(running);
    ASSERT_EQ(running.size() + scheduler.waiting().size(), live.size());
  }
}

TEST(RandomLoad, KeepsEveryInvariant) {
  Totals totals;
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run_random_load(seed, totals);
    if (testing::Test::HasFatalFailure()) return;
  }
  // The load does reach what it is for.
  EXPECT_GT(totals.finished, 1000);
  EXPECT_GT(totals.preempted, 80);
  EXPECT_GT(totals.from_cache, 1000);
}

}  // namespace
}  // namespace tramontane
