// What a backend that samples is told about each row of logits. Plain data that host and device lay out
// alike; engine/sampling_batch.h fills it, Backend::sample reads it. Engine thread only.
#pragma once

#include <cstdint>

#include "engine/backend/tensor.h"

namespace tramontane {

// Added to one id's logit before penalties. -infinity: the id may not be sampled.
struct LogitBias {
  int32_t id = 0;
  float bias = 0.0f;
};

// One token to draw, by the definition of engine/sampler.h.
struct SamplingRow {
  uint64_t seed = 0, position = 0;  // what the draw depends on
  int32_t logits_row = -1;          // -1: padding, its id becomes -1
  int32_t counts_row = -1;          // row of SamplingView::counts; -1: no penalties
  int32_t first_bias = 0, n_biases = 0;
  float temperature = 0.0f;  // 0: the likeliest
  float top_p = 1.0f, min_p = 0.0f;
  int32_t top_k = 0;  // 0: off
  float repetition_penalty = 1.0f, presence_penalty = 0.0f, frequency_penalty = 0.0f;
  int32_t padding = 0;
};
static_assert(sizeof(SamplingRow) == 64);

// All in memory of the backend.
struct SamplingView {
  const SamplingRow* rows = nullptr;  // [n_rows]
  const LogitBias* biases = nullptr;  // a row's ids are distinct
  TensorView counts;  // i32 [sequences, vocab]: 2 · occurrences in the output + (1 if in the prompt)
  TensorView ids;     // i32 [n_rows]
  int32_t n_rows = 0;
};

}  // namespace tramontane
