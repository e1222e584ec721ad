#include "engine/accounting.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <vector>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

TokenEvent with_logprobs(TokenEvent event, Generation& generation, const Sampler::Logprobs& logprobs) {
  std::vector<TokenLogprob>& storage = generation.top_storage;
  CHECK_LE(storage.size() + logprobs.top.size(),
           storage.capacity());  // events point into it: it must not move
  event.logprob = logprobs.logprob;
  event.n_top = static_cast<int16_t>(logprobs.top.size());
  event.top = storage.data() + storage.size();
  storage.insert(storage.end(), logprobs.top.begin(), logprobs.top.end());
  return event;
}

uint64_t& counter_of(EngineStats& counts, FinishReason reason) {
  switch (reason) {
    case FinishReason::stop:
      return counts.finished_stop;
    case FinishReason::length:
      return counts.finished_length;
    case FinishReason::cancelled:
      return counts.cancelled;
    case FinishReason::deadline:
      return counts.deadline_passed;
    case FinishReason::queue_timeout:
      return counts.queue_timeouts;
    case FinishReason::error:
      return counts.errors;
    case FinishReason::none:
      break;
  }
  CHECK(false, "an answer finishes for a reason");
  return counts.errors;
}

}  // namespace

void Accounting::begin(const SchedulePlan& plan) {
  counts.preemptions += plan.preempted.size();
  for (Sequence* sequence : plan.admitted) {
    ActiveRequest& active = *as_active(sequence).owner;
    if (active.started) continue;
    active.started = true;
    active.started_at = std::chrono::steady_clock::now();
    active.generation->timings.cached_tokens = sequence->n_from_cache;
    counts.prompt_tokens += static_cast<uint64_t>(sequence->n_prompt);
    counts.cached_prompt_tokens += static_cast<uint64_t>(sequence->n_from_cache);
    inbox_.leave_queue(active, true);
  }
}

void Accounting::launched(const Step& step) {
  for (const Chunk& chunk : step.chunks) {
    ActiveSequence& answer = as_active(chunk.sequence);
    counts.recomputed_tokens += std::clamp(answer.n_ever_computed - chunk.first, 0, chunk.n_tokens);
    scheduler_.advance(chunk);
    ++answer.owner->n_in_flight;
  }
}

// What ended since the launch is passed over: its last tokens were computed for nothing.
void Accounting::account(const Step& step) {
  for (size_t i = 0; i < step.chunks.size(); ++i) {
    const Chunk& chunk = step.chunks[i];
    const ChunkResult& result = step.results[i];
    ActiveSequence& answer = as_active(chunk.sequence);
    --answer.owner->n_in_flight;
    if (!answer.finished) report_scores(chunk, result.logits);
    if (answer.finished) continue;  // also by a score that is not finite
    if (chunk.samples) {
      take_token(answer, result);
    } else if (answer.max_tokens == 0 && chunk.first + chunk.n_tokens == answer.length()) {
      finish(answer, FinishReason::length);
    }
  }
}

// Prompt rows: row r tells how likely the prompt's token r + 1 was.
void Accounting::report_scores(const Chunk& chunk, std::span<const float> rows) {
  ActiveSequence& answer = as_active(chunk.sequence);
  const int32_t n_scores = chunk.n_logits - (chunk.samples ? 1 : 0);
  const int32_t first_row = chunk.first + chunk.n_tokens - chunk.n_logits;
  Generation& generation = *answer.owner->generation;
  for (int32_t i = 0; i < n_scores; ++i) {
    const int32_t token = answer.tokens[first_row + i + 1];
    const auto scores = sampler_.logprobs(rows.subspan(i * vocab_, vocab_), token,
                                          answer.owner->request.sampling.prompt_logprobs);
    if (!scores) {
      spdlog::error("request {}: a logit at position {} is not finite", answer.owner->request.id,
                    first_row + i);
      return fail(answer);
    }
    const TokenEvent event{.kind = TokenEvent::Kind::prompt_logprob, .index = answer.index, .token = token};
    generation.events.push(with_logprobs(event, generation, *scores));
  }
}

void Accounting::take_token(ActiveSequence& answer, const ChunkResult& result) {
  const std::vector<int32_t>& end_ids = answer.owner->end_ids;
  if (!result.token) {
    spdlog::error(
        "request {}: no token can be sampled at position {}: a logit is not finite or every id is masked",
        answer.owner->request.id, answer.n_known());
    return fail(answer);
  }
  if (std::binary_search(end_ids.begin(), end_ids.end(), *result.token))
    return finish(answer, FinishReason::stop);
  scheduler_.learn(answer, *result.token);
  send_token(answer, *result.token, result.logits);
  if (answer.n_known() - answer.n_prompt == answer.max_tokens) finish(answer, FinishReason::length);
}

void Accounting::send_token(ActiveSequence& answer, int32_t token, std::span<const float> logits) {
  ActiveRequest& active = *answer.owner;
  Generation& generation = *active.generation;
  ++counts.generated_tokens;
  if (!active.has_token) active.first_token_at = std::chrono::steady_clock::now();
  active.has_token = true;
  TokenEvent event{.kind = TokenEvent::Kind::token, .index = answer.index, .token = token};
  if (const int32_t k = active.request.sampling.logprobs; k >= 0) {
    // Finite: it has just been sampled from.
    event = with_logprobs(event, generation, *sampler_.logprobs(logits.last(vocab_), token, k));
  }
  generation.events.push(event);
}

// Logits that are not finite may come of keys and values that are not: whoever found them in the prefix cache
// would fail too.
void Accounting::fail(ActiveSequence& answer) {
  scheduler_.distrust(answer);
  finish(answer, FinishReason::error);
}

void Accounting::finish(ActiveSequence& answer, FinishReason reason) {
  ActiveRequest& active = *answer.owner;
  scheduler_.finish(&answer);
  answer.finished = true;
  ++counter_of(counts, reason);
  if (--active.n_unfinished == 0) close(active);
  active.generation->events.push(
      {.kind = TokenEvent::Kind::finished, .finish = reason, .index = answer.index});
}

// The timings are complete before the last finishing event is sent.
void Accounting::close(ActiveRequest& active) {
  const SteadyTime now = std::chrono::steady_clock::now();
  const SteadyTime started = active.started ? active.started_at : now;
  const SteadyTime first = active.has_token ? active.first_token_at : now;
  RequestTimings& timings = active.generation->timings;
  timings.queue_s = seconds_between(active.submitted_at, started);
  timings.prefill_s = seconds_between(started, first);
  timings.decode_s = seconds_between(first, now);
  if (active.started) return;
  active.started = true;
  inbox_.leave_queue(active, false);
}

}  // namespace tramontane
