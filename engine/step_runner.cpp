#include "engine/step_runner.h"

#include <algorithm>

#include "engine/active_request.h"
#include "engine/backend/check.h"

namespace tramontane {

bool wants_logits(const Chunk& chunk) {
  const int32_t n_scores = chunk.n_logits - (chunk.samples ? 1 : 0);
  return n_scores > 0 || (chunk.samples && as_active(chunk.sequence).owner->request.sampling.logprobs >= 0);
}

StepRunner::StepRunner(Backend& backend, Mistral& model, KvCache& cache, const BlockManager& blocks,
                       Sampler& sampler, const BatchLimits& limits)
    : backend_(backend),
      model_(model),
      cache_(cache),
      blocks_(blocks),
      sampler_(sampler),
      vocab_(static_cast<size_t>(model.config().vocab_size)),
      samples_on_device_(backend.samples_on_device()),
      batch_(backend, limits),
      logits_(static_cast<size_t>(limits.max_logits) * vocab_),
      ids_(static_cast<size_t>(limits.max_sequences)) {
  if (samples_on_device_)
    sampling_ = std::make_unique<SamplingBatch>(backend, limits, model.config().vocab_size);
}

void StepRunner::launch(const SchedulePlan& plan, Step& step) {
  CHECK(!plan.chunks.empty(), "a step that is launched has something to compute");
  for (Sequence* sequence : plan.admitted) as_active(sequence).counted = false;
  step.chunks.assign(plan.chunks.begin(), plan.chunks.end());
  step.results.assign(plan.chunks.size(), {});
  step.needs_logits = std::any_of(plan.chunks.begin(), plan.chunks.end(), wants_logits);
  step.place = next_place_;
  next_place_ ^= 1;
  fill_batch(plan);
  const BatchView batch = batch_.upload();
  if (batch_.has_sources()) backend_.take_tokens(sampling_->ids(), batch_.sources(), batch.tokens);
  const TensorView logits = model_.forward(batch, cache_);
  samples_on_device_ ? sample_on_device(step, logits) : sample_on_host(step, logits);
}

void StepRunner::fill_batch(const SchedulePlan& plan) {
  batch_.clear();
  for (const Chunk& chunk : plan.chunks) {
    const ActiveSequence& sequence = as_active(chunk.sequence);
    const int32_t end = chunk.first + chunk.n_tokens;
    for (int32_t block = chunk.first / kBlockTokens; block < BlockManager::blocks_for(end); ++block)
      CHECK(blocks_.is_own(sequence.blocks[block]), "a block that is written has one owner");
    batch_.add(std::span(sequence.tokens).subspan(chunk.first, chunk.n_tokens), chunk.first, sequence.blocks,
               chunk.n_logits);
    // Only the newest token can be unknown, and then it is the chunk's only one.
    CHECK_LE(sequence.n_pending, 1);
    if (sequence.n_pending > 0) batch_.take_last_token_from(sequence.drawn_row);
  }
}

// Copies some rows to the same rows on the host, once all work is done.
std::span<float> StepRunner::download(TensorView logits, int32_t first_row, int32_t n_rows) {
  const auto first = static_cast<size_t>(first_row) * vocab_, count = static_cast<size_t>(n_rows) * vocab_;
  const std::span<float> rows = std::span(logits_).subspan(first, count);
  backend_.download(logits.data + first * sizeof(float), std::as_writable_bytes(rows));
  return rows;
}

// Logits are the host's before the device changes them.
void StepRunner::sample_on_device(Step& step, TensorView logits) {
  sampling_->clear();
  int32_t first_row = 0;
  for (size_t i = 0; i < step.chunks.size(); ++i) {
    const Chunk& chunk = step.chunks[i];
    if (wants_logits(chunk)) step.results[i].logits = download(logits, first_row, chunk.n_logits);
    first_row += chunk.n_logits;
    if (!chunk.samples) continue;
    ActiveSequence& sequence = as_active(chunk.sequence);
    sequence.drawn_row = sampling_->n_rows();
    sampling_->add(sequence, first_row - 1);
  }
  sampling_->sample(logits);
  // Also without ids: a step is over, and its errors known, once something came back.
  backend_.start_read(step.place, sampling_->ids().data,
                      static_cast<size_t>(sampling_->n_rows()) * sizeof(int32_t));
}

void StepRunner::sample_on_host(Step& step, TensorView logits) {
  int32_t n_logits = 0;
  for (const Chunk& chunk : step.chunks) n_logits += chunk.n_logits;
  std::span<const float> rest = download(logits, 0, n_logits);
  for (size_t i = 0; i < step.chunks.size(); ++i) {
    const Chunk& chunk = step.chunks[i];
    ChunkResult& result = step.results[i];
    result.logits = rest.first(static_cast<size_t>(chunk.n_logits) * vocab_);
    rest = rest.subspan(result.logits.size());
    if (!chunk.samples) continue;
    const ActiveSequence& answer = as_active(chunk.sequence);
    const ActiveRequest& active = *answer.owner;
    const SamplingParams& params = active.request.sampling;
    const bool may_end = answer.n_output() >= params.min_tokens;
    result.token =
        sampler_.sample(result.logits.last(vocab_),
                        {.params = params,
                         .tokens = answer.tokens,
                         .n_prompt = answer.n_prompt,
                         .masked = may_end ? std::span<const int32_t>{} : std::span(active.end_ids),
                         .seed = params.seed + static_cast<uint64_t>(answer.index)});
  }
}

void StepRunner::wait(Step& step) {
  if (!samples_on_device_) return;
  size_t n_rows = 0;
  for (const Chunk& chunk : step.chunks) n_rows += chunk.samples;
  const std::span<int32_t> ids = std::span(ids_).first(n_rows);
  backend_.finish_read(step.place, std::as_writable_bytes(ids));
  size_t row = 0;
  for (size_t i = 0; i < step.chunks.size(); ++i) {
    if (!step.chunks[i].samples) continue;
    const int32_t id = ids[row++];
    if (id >= 0) step.results[i].token = id;
  }
}

}  // namespace tramontane
