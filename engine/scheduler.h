// Scheduler: decides what the next step computes. Pure: no backend, no clock, no thread, no allocation in
// plan(). Engine thread only.
//
// A step has a budget of rows. Sequences that are through their prompt come first (one row each), then
// prompts under way, then waiting ones, each by (priority, arrival); a prompt is cut to what is left of the
// budget. A waiting sequence is admitted when its whole text fits into the available blocks; when a running
// one needs a block and none is left, the running sequence that comes last gives all of its own back and
// waits again.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_manager.h"
#include "engine/sequence.h"

namespace tramontane {

struct SchedulerLimits {
  int32_t step_tokens = 512;   // rows of a step
  int32_t max_sequences = 64;  // running at a time
  int32_t max_logits = 64;     // rows of a step that may want logits; >= max_sequences
};

// The next n_tokens tokens of a sequence, from n_computed on. Of its rows the last n_logits want logits.
struct Chunk {
  Sequence* sequence = nullptr;
  int32_t n_tokens = 0;
  int32_t n_logits = 0;
  bool samples = false;  // the last row's logits give the next token
  int32_t first = 0;     // position of its first token
};

struct SchedulePlan {
  std::vector<Chunk> chunks;
  std::vector<Sequence*> admitted;   // were waiting, have blocks now
  std::vector<Sequence*> preempted;  // wait again, their blocks are gone
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, BlockManager& blocks);

  // The sequence waits from now on. It must fit: blocks_for(all it may become) <= n_blocks. May allocate.
  void add(Sequence* sequence);
  // What the next step is to compute; valid until the next call.
  const SchedulePlan& plan();
  // The chunk will have been computed before any step planned from now on. A token that it samples is the
  // sequence's newest, not known yet.
  void advance(const Chunk& chunk);
  // The first of the sequence's pending tokens is this one.
  void learn(Sequence& sequence, int32_t token);
  // The sequence's keys and values are not to be trusted: no other one will find them.
  void distrust(const Sequence& sequence) { blocks_.forget_text(sequence); }
  // The sequence leaves, waiting or running, and its blocks are free.
  void finish(Sequence* sequence);

  std::span<Sequence* const> waiting() const { return waiting_; }
  std::span<Sequence* const> running() const { return running_; }

 private:
  void plan_decodes();
  void plan_prompts();
  void admit_waiting();
  bool make_room(Sequence* sequence);
  void leave(Sequence& sequence);
  void preempt_last();
  bool waits_for_sibling(const Sequence& sequence) const;
  void add_chunk(Sequence* sequence);

  SchedulerLimits limits_;
  BlockManager& blocks_;
  std::vector<Sequence*> waiting_, running_;  // both in the order of runs_before
  std::vector<int32_t> free_slots_;
  SchedulePlan plan_;
  int32_t tokens_left_ = 0, logits_left_ = 0;
};

}  // namespace tramontane
