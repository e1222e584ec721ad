// A plan is data: each test drives the scheduler step by step and compares "which sequence, how many tokens"
// with a table.
#include "engine/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <tuple>

namespace tramontane {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// (sequence, tokens, logits, samples)
using Row = std::tuple<int, int, int, bool>;

class SchedulerTest : public testing::Test {
 protected:
  void start(SchedulerLimits limits, int32_t n_blocks) {
    blocks_ = std::make_unique<BlockManager>(n_blocks);
    scheduler_ = std::make_unique<Scheduler>(limits, *blocks_);
  }

  // Prompts of different sequences differ unless they have the same `content`.
  Sequence& add(int32_t n_prompt, int32_t content, int32_t priority = 0) {
    Sequence& sequence = make(n_prompt, content, priority);
    scheduler_->add(&sequence);
    return sequence;
  }
  Sequence& make(int32_t n_prompt, int32_t content, int32_t priority = 0) {
    Sequence& sequence = sequences_.emplace_back();
    sequence.id = sequences_.size() - 1;
    sequence.priority = priority;
    sequence.n_prompt = n_prompt;
    sequence.max_tokens = 1000;
    sequence.cache_root = blocks_->root_of("");
    for (int32_t i = 0; i < n_prompt; ++i) sequence.tokens.push_back(content * 10000 + i);
    return sequence;
  }

  // Plans, carries out (a sampled token is -1) and returns one step.
  std::vector<Row> step() {
    std::vector<Row> rows;
    const SchedulePlan& plan = scheduler_->plan();
    preempted_.clear();
    for (const Sequence* sequence : plan.preempted) preempted_.push_back(static_cast<int>(sequence->id));
    for (const Chunk& chunk : plan.chunks) {
      rows.emplace_back(static_cast<int>(chunk.sequence->id), chunk.n_tokens, chunk.n_logits, chunk.samples);
      scheduler_->advance(chunk);
      if (chunk.samples) scheduler_->learn(*chunk.sequence, -1);
    }
    std::vector<const Sequence*> running(scheduler_->running().begin(), scheduler_->running().end());
    blocks_->check(running);
    return rows;
  }

  std::unique_ptr<BlockManager> blocks_;
  std::unique_ptr<Scheduler> scheduler_;
  std::deque<Sequence> sequences_;
  std::vector<int> preempted_;
};

TEST_F(SchedulerTest, CutsPromptsToTheBudgetAndServesDecodesFirst) {
  start({.step_tokens = 10, .max_sequences = 4, .max_logits = 4}, 100);
  add(3, 1);
  EXPECT_THAT(step(), ElementsAre(Row(0, 3, 1, true)));
  add(25, 2);
  add(4, 3);
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 9, 0, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 9, 0, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 7, 1, true), Row(2, 2, 0, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true), Row(2, 2, 1, true)));
}

TEST_F(SchedulerTest, RunsNoMoreSequencesThanAllowedAndFillsFreedPlaces) {
  start({.step_tokens = 100, .max_sequences = 2, .max_logits = 2}, 100);
  Sequence& first = add(2, 1);
  add(2, 2);
  add(2, 3);
  EXPECT_THAT(step(), ElementsAre(Row(0, 2, 1, true), Row(1, 2, 1, true)));
  scheduler_->finish(&first);
  EXPECT_THAT(step(), ElementsAre(Row(1, 1, 1, true), Row(2, 2, 1, true)));
}

TEST_F(SchedulerTest, LowerPriorityValueRunsFirstThenArrival) {
  start({.step_tokens = 4, .max_sequences = 1, .max_logits = 1}, 100);
  add(2, 1, 5);
  add(2, 2, 0);
  add(2, 3, 0);
  EXPECT_THAT(step(), ElementsAre(Row(1, 2, 1, true)));
  scheduler_->finish(&sequences_[1]);
  EXPECT_THAT(step(), ElementsAre(Row(2, 2, 1, true)));
  scheduler_->finish(&sequences_[2]);
  EXPECT_THAT(step(), ElementsAre(Row(0, 2, 1, true)));
}

TEST_F(SchedulerTest, TakesFullBlocksFromThePrefixCacheButComputesTheLastToken) {
  start({.step_tokens = 100, .max_sequences = 4, .max_logits = 4}, 100);
  add(40, 1);
  step();
  add(40, 1);  // 2 full blocks of the same text
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 8, 1, true)));
  EXPECT_EQ(sequences_[1].n_from_cache, 32);
  add(32, 1);  // both of its blocks are cached, but one token must be left to compute
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true), Row(2, 16, 1, true)));
}

TEST_F(SchedulerTest, AnotherSaltSharesNothing) {
  start({.step_tokens = 100, .max_sequences = 4, .max_logits = 4}, 100);
  add(40, 1);
  step();
  Sequence& other = make(40, 1);
  other.cache_root = blocks_->root_of("tenant b");
  scheduler_->add(&other);
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 40, 1, true)));
}

TEST_F(SchedulerTest, PreemptsTheLatestArrivalAndRecomputesItLater) {
  start({.step_tokens = 100, .max_sequences = 2, .max_logits = 2}, 3);
  add(15, 1);
  add(14, 2);
  EXPECT_THAT(step(), ElementsAre(Row(0, 15, 1, true), Row(1, 14, 1, true)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));  // both blocks full
  EXPECT_THAT(step(),
              ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));  // 0 takes the third block; 1 is at 16
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true)));              // 1 finds none
  EXPECT_THAT(preempted_, ElementsAre(1));
  EXPECT_EQ(sequences_[1].n_computed, 0);
  EXPECT_EQ(sequences_[1].length(), 17);
  scheduler_->finish(&sequences_[0]);
  // Its own first block is still cached: only the last token is computed again.
  EXPECT_THAT(step(), ElementsAre(Row(1, 1, 1, true)));
}

// Priority counts among the running ones too: a later arrival that is more urgent keeps its blocks.
TEST_F(SchedulerTest, TheLeastUrgentIsPreemptedEvenWhenItCameFirst) {
  start({.step_tokens = 100, .max_sequences = 2, .max_logits = 2}, 4);
  add(16, 1, 1);
  step();
  add(14, 2, 0);
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 14, 1, true)));
  EXPECT_THAT(step(), ElementsAre(Row(1, 1, 1, true), Row(0, 1, 1, true)));
  for (int i = 0; i < 20 && preempted_.empty(); ++i) step();  // 0 wants its third block, and there is none
  EXPECT_THAT(preempted_, ElementsAre(0));
  EXPECT_THAT(scheduler_->running(), ElementsAre(&sequences_[1]));
}

TEST_F(SchedulerTest, AnEarlierOneTakesTheBlocksOfALaterOne) {
  start({.step_tokens = 100, .max_sequences = 2, .max_logits = 2}, 3);
  add(16, 1);
  add(10, 2);
  step();
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));
  for (int i = 0; i < 15; ++i)
    step();  // 0 fills its second block; 1 fills its first and is preempted on the way
  EXPECT_THAT(scheduler_->running(), ElementsAre(&sequences_[0]));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true)));
  EXPECT_EQ(sequences_[0].blocks.size(), 3u);
}

TEST_F(SchedulerTest, DoesNotAdmitWhatWouldBePreemptedAtOnce) {
  start({.step_tokens = 100, .max_sequences = 4, .max_logits = 4}, 4);
  add(17, 1);
  add(17, 2);  // fits exactly, but leaves the first one no block to grow into
  EXPECT_THAT(step(), ElementsAre(Row(0, 17, 1, true)));
  EXPECT_THAT(scheduler_->waiting(), ElementsAre(&sequences_[1]));
}

TEST_F(SchedulerTest, SiblingsWaitForThePromptAndShareIt) {
  start({.step_tokens = 30, .max_sequences = 4, .max_logits = 4}, 100);
  SequenceGroup group;
  for (int i = 0; i < 3; ++i) {
    Sequence& sibling = make(40, 1);
    sibling.group = &group;
    scheduler_->add(&sibling);
  }
  EXPECT_THAT(step(), ElementsAre(Row(0, 30, 0, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 10, 1, true)));  // there would be room for 20 more
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 8, 1, true), Row(2, 8, 1, true)));
  EXPECT_EQ(sequences_[0].blocks[0], sequences_[2].blocks[0]);
  EXPECT_NE(sequences_[0].blocks[2], sequences_[2].blocks[2]);
}

TEST_F(SchedulerTest, WhenTheComputingSiblingLeavesAnotherTakesOver) {
  start({.step_tokens = 20, .max_sequences = 4, .max_logits = 4}, 100);
  SequenceGroup group;
  for (int i = 0; i < 2; ++i) {
    Sequence& sibling = make(40, 1);
    sibling.group = &group;
    scheduler_->add(&sibling);
  }
  step();
  scheduler_->finish(&sequences_[0]);
  EXPECT_THAT(step(), ElementsAre(Row(1, 20, 0, false)) /* 16 from the cache, then up to the budget */);
}

TEST_F(SchedulerTest, ScoringIsBoundedByLogitRowsAndReadsNothingFromTheCache) {
  start({.step_tokens = 100, .max_sequences = 2, .max_logits = 8}, 100);
  add(20, 1);
  step();
  Sequence& scored = make(20, 1);
  scored.scores_prompt = true;
  scheduler_->add(&scored);
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 7, 7, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 7, 7, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true),
                                  Row(1, 5, 5, false)));  // row 18, the last that tells of a prompt token
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));
}

TEST_F(SchedulerTest, APromptThatIsOnlyScoredSamplesNothing) {
  start({.step_tokens = 100, .max_sequences = 1, .max_logits = 100}, 100);
  Sequence& scored = make(5, 1);
  scored.scores_prompt = true;
  scored.max_tokens = 0;
  scheduler_->add(&scored);
  EXPECT_THAT(step(), ElementsAre(Row(0, 4, 4, false)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 0, false)));
}

TEST_F(SchedulerTest, FinishingAWaitingSequenceRemovesIt) {
  start({.step_tokens = 100, .max_sequences = 1, .max_logits = 1}, 100);
  add(5, 1);
  add(5, 2);
  scheduler_->finish(&sequences_[1]);
  EXPECT_THAT(scheduler_->waiting(), ElementsAre(&sequences_[0]));
  scheduler_->finish(&sequences_[0]);
  EXPECT_THAT(step(), IsEmpty());
}

TEST_F(SchedulerTest, ASmallBudgetServesTheEarliestDecodes) {
  start({.step_tokens = 2, .max_sequences = 3, .max_logits = 3}, 100);
  for (int i = 0; i < 3; ++i) add(1, i + 1);
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));
  EXPECT_THAT(step(), ElementsAre(Row(0, 1, 1, true), Row(1, 1, 1, true)));
  scheduler_->finish(&sequences_[0]);
  EXPECT_THAT(step(), ElementsAre(Row(1, 1, 1, true), Row(2, 1, 1, true)));
}

}  // namespace
}  // namespace tramontane
