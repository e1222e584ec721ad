// What Backend::sample must return, by the host's sampler: for tests of backends that sample.
#pragma once

#include <span>

#include "engine/backend/sampling.h"
#include "engine/sampler.h"

namespace tramontane {

// The id for `row`, -1 for none. `biases`: the row's own. `counts` [vocab]: empty without penalties.
inline int32_t reference_sample(Sampler& sampler, const SamplingRow& row, std::span<const float> logits,
                                std::span<const LogitBias> biases, std::span<const int32_t> counts) {
  SamplingParams params;
  params.temperature = row.temperature;
  params.top_p = row.top_p;
  params.top_k = row.top_k;
  params.min_p = row.min_p;
  std::vector<int32_t> masked;
  for (const LogitBias& b : biases) {
    if (b.bias == -std::numeric_limits<float>::infinity()) {
      masked.push_back(b.id);
    } else {
      params.logit_bias.emplace_back(b.id, b.bias);
    }
  }
  // A text of `position` tokens with these counts.
  std::vector<int32_t> prompt, output;
  for (size_t id = 0; id < counts.size(); ++id) {
    if (counts[id] & 1) prompt.push_back(static_cast<int32_t>(id));
    output.insert(output.end(), static_cast<size_t>(counts[id] >> 1), static_cast<int32_t>(id));
  }
  if (!counts.empty()) {
    params.repetition_penalty = row.repetition_penalty;
    params.presence_penalty = row.presence_penalty;
    params.frequency_penalty = row.frequency_penalty;
  }
  prompt.resize(row.position - output.size(), prompt.empty() ? 0 : prompt.front());
  const auto n_prompt = static_cast<int32_t>(prompt.size());
  prompt.insert(prompt.end(), output.begin(), output.end());
  return sampler
      .sample(logits,
              {.params = params, .tokens = prompt, .n_prompt = n_prompt, .masked = masked, .seed = row.seed})
      .value_or(-1);
}

}  // namespace tramontane
