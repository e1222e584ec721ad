#include "engine/scheduler.h"

#include <algorithm>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Keeps the order; allocates only beyond the reserved capacity.
void insert_sorted(std::vector<Sequence*>& list, Sequence* sequence) {
  list.insert(std::upper_bound(list.begin(), list.end(), sequence, runs_before), sequence);
}

bool remove_from(std::vector<Sequence*>& list, const Sequence* sequence) {
  const auto found = std::find(list.begin(), list.end(), sequence);
  if (found == list.end()) return false;
  list.erase(found);
  return true;
}

bool decodes(const Sequence& sequence) {
  return sequence.length() - sequence.n_computed == 1;
}

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, BlockManager& blocks) : limits_(limits), blocks_(blocks) {
  CHECK_GE(limits.step_tokens, 1);
  CHECK_GE(limits.max_sequences, 1);
  CHECK_GE(limits.max_logits, limits.max_sequences);
  const auto most = static_cast<size_t>(limits.max_sequences);
  running_.reserve(most);
  for (int32_t slot = limits.max_sequences - 1; slot >= 0; --slot) free_slots_.push_back(slot);
  plan_.chunks.reserve(most);
  plan_.admitted.reserve(most);
  plan_.preempted.reserve(most);
}

void Scheduler::add(Sequence* sequence) {
  // Room for everybody to wait, so that a preemption allocates nothing. Doubling keeps a long queue's filling
  // linear.
  const size_t all = waiting_.size() + running_.size() + 1;
  if (waiting_.capacity() < all) waiting_.reserve(2 * all);
  insert_sorted(waiting_, sequence);
}

const SchedulePlan& Scheduler::plan() {
  plan_.chunks.clear();
  plan_.admitted.clear();
  plan_.preempted.clear();
  tokens_left_ = limits_.step_tokens;
  logits_left_ = limits_.max_logits;
  plan_decodes();
  plan_prompts();
  // What was just preempted would only push its way back in and out again.
  if (plan_.preempted.empty()) admit_waiting();
  return plan_;
}

void Scheduler::plan_decodes() {
  // running_ may shrink from its end while we go.
  for (size_t i = 0; i < running_.size() && tokens_left_ > 0; ++i) {
    Sequence* sequence = running_[i];
    if (decodes(*sequence) && !sequence->awaits_end() && make_room(sequence)) add_chunk(sequence);
  }
}

void Scheduler::plan_prompts() {
  for (Sequence* sequence : running_) {
    if (tokens_left_ == 0) return;
    if (!decodes(*sequence)) add_chunk(sequence);  // its blocks were taken at admission
  }
}

void Scheduler::admit_waiting() {
  for (size_t i = 0; i < waiting_.size() && tokens_left_ > 0;) {
    if (running_.size() == static_cast<size_t>(limits_.max_sequences)) return;
    Sequence* sequence = waiting_[i];
    if (waits_for_sibling(*sequence)) {
      ++i;
      continue;
    }
    const BlockManager::Prefix prefix = blocks_.find_prefix(*sequence);
    const int32_t needed = BlockManager::blocks_for(sequence->length()) - prefix.n_blocks + prefix.n_idle;
    // One block of headroom for each running sequence: what is admitted now should not be preempted in the
    // next step.
    const int32_t headroom = static_cast<int32_t>(running_.size());
    if (needed + headroom > blocks_.n_available()) return;  // first come, first served
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    insert_sorted(running_, sequence);
    sequence->slot = free_slots_.back();
    free_slots_.pop_back();
    blocks_.admit(*sequence, prefix, sequence->length());
    sequence->n_from_cache = sequence->n_computed;
    if (sequence->group != nullptr && !sequence->group->prompt_computed)
      sequence->group->computing = sequence;
    plan_.admitted.push_back(sequence);
    add_chunk(sequence);
  }
}

bool Scheduler::waits_for_sibling(const Sequence& sequence) const {
  const SequenceGroup* group = sequence.group;
  return group != nullptr && !group->prompt_computed && group->computing != nullptr;
}

// A block for the next token, if need be at the cost of the sequences that come last. False when that was
// this one.
bool Scheduler::make_room(Sequence* sequence) {
  while (BlockManager::blocks_for(sequence->length()) > static_cast<int32_t>(sequence->blocks.size())) {
    if (blocks_.grow(*sequence)) continue;
    const bool is_last = running_.back() == sequence;
    preempt_last();
    if (is_last) return false;
  }
  return true;
}

void Scheduler::preempt_last() {
  Sequence* victim = running_.back();
  running_.pop_back();
  if (victim->group != nullptr && victim->group->computing == victim) victim->group->computing = nullptr;
  leave(*victim);
  insert_sorted(waiting_, victim);
  plan_.preempted.push_back(victim);
}

// What only a running sequence has.
void Scheduler::leave(Sequence& sequence) {
  blocks_.release(sequence);
  free_slots_.push_back(sequence.slot);
  sequence.slot = -1;
}

void Scheduler::add_chunk(Sequence* sequence) {
  const int32_t first = sequence->n_computed;
  int32_t last = std::min(sequence->length(), first + tokens_left_);
  // Rows [n_scored, rows_to_score) and, at the end of the text, the sampled row want logits. They are the
  // chunk's last rows, because nothing beyond n_scored comes from the cache and a chunk that still scores
  // ends where scoring ends or the logit rows do.
  const int32_t score_from = std::max(first, sequence->n_scored);
  int32_t n_logits = 0;
  if (score_from < sequence->rows_to_score()) {
    last = std::min({last, sequence->rows_to_score(), score_from + logits_left_});
    n_logits = std::max(0, last - score_from);
  }
  const bool samples = last == sequence->length() && sequence->max_tokens > 0;
  if (samples && logits_left_ == 0) --last;
  if (last <= first) return;
  Chunk chunk{sequence, last - first, n_logits, samples && logits_left_ > 0, first};
  if (chunk.samples) chunk.n_logits = n_logits + 1;
  tokens_left_ -= chunk.n_tokens;
  logits_left_ -= chunk.n_logits;
  plan_.chunks.push_back(chunk);
}

void Scheduler::advance(const Chunk& chunk) {
  Sequence& sequence = *chunk.sequence;
  sequence.n_computed += chunk.n_tokens;
  sequence.n_ever_computed = std::max(sequence.n_ever_computed, sequence.n_computed);
  sequence.n_scored = std::max(sequence.n_scored, std::min(sequence.n_computed, sequence.rows_to_score()));
  blocks_.cache_computed(sequence);
  SequenceGroup* group = sequence.group;
  if (group != nullptr && group->computing == &sequence && sequence.n_computed >= sequence.n_prompt) {
    group->prompt_computed = true;
    group->computing = nullptr;
  }
  if (!chunk.samples) return;
  sequence.tokens.push_back(kPendingToken);
  ++sequence.n_pending;
}

void Scheduler::learn(Sequence& sequence, int32_t token) {
  CHECK_GE(sequence.n_pending, 1);
  sequence.tokens[sequence.n_known()] = token;
  --sequence.n_pending;
  blocks_.cache_computed(sequence);
}

void Scheduler::finish(Sequence* sequence) {
  if (sequence->group != nullptr && sequence->group->computing == sequence)
    sequence->group->computing = nullptr;
  if (remove_from(running_, sequence)) {
    leave(*sequence);
  } else {
    CHECK(remove_from(waiting_, sequence), "finish: the sequence is neither running nor waiting");
  }
}

}  // namespace tramontane
