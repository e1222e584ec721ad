// StepRunner: carries a plan out: batch, forward pass, sampling. Where the backend samples, a step is only
// launched here, and the next one may be launched before its tokens are known: they are fed on the device.
// Otherwise the host samples, and a launched step is a finished one. Engine thread only.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/batch.h"
#include "engine/block_manager.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"
#include "engine/sampler.h"
#include "engine/sampling_batch.h"
#include "engine/step.h"

namespace tramontane {

class StepRunner {
 public:
  // All references must outlive it.
  StepRunner(Backend& backend, Mistral& model, KvCache& cache, const BlockManager& blocks, Sampler& sampler,
             const BatchLimits& limits);

  // Queues the plan's work. Sequences are not changed, but for what they note of the device's state.
  void launch(const SchedulePlan& plan, Step& step);
  // Waits for a launched step, and no other, and fills its tokens.
  void wait(Step& step);
  // Whether the next step can be planned before this one has been waited for.
  bool may_run_ahead(const Step& step) const { return samples_on_device_ && !step.needs_logits; }

 private:
  void fill_batch(const SchedulePlan& plan);
  void sample_on_device(Step& step, TensorView logits);
  void sample_on_host(Step& step, TensorView logits);
  std::span<float> download(TensorView logits, int32_t first_row, int32_t n_rows);

  Backend& backend_;
  Mistral& model_;
  KvCache& cache_;
  const BlockManager& blocks_;
  Sampler& sampler_;
  const size_t vocab_;
  const bool samples_on_device_;
  Batch batch_;
  std::unique_ptr<SamplingBatch> sampling_;  // only where the backend samples
  std::vector<float> logits_;                // [max_logits, vocab] on the host
  std::vector<int32_t> ids_;                 // [max_sequences]
  int next_place_ = 0;
};

// Whether a chunk's logits are looked at on the host: the prompt is scored, or log probabilities are sent.
bool wants_logits(const Chunk& chunk);

}  // namespace tramontane
