// Sampler: FP32 logits of one row to the next token, on the host. Order: logit_bias, penalties, masked ids,
// temperature, top_k, top_p, min_p. A pure function of its arguments: no state survives a call. Never
// allocates after construction. Engine thread only.
//
// Probabilities are kept as integers, weight = floor(2^40 * exp((logit - max) / temperature)): sums are exact
// whatever their order, so nucleus and draw need no sorted pass and cannot depend on rounding. A token rarer
// than 2^-40 times the likeliest is never drawn.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/request.h"

namespace tramontane {

// What a row's sampling may look at besides its logits.
struct SamplingContext {
  const SamplingParams& params;
  std::span<const int32_t> tokens;  // prompt and output so far
  int32_t n_prompt = 0;
  std::span<const int32_t> masked;  // ids that may not be sampled now (min_tokens)
  uint64_t seed = 0;                // of this sequence
};

class Sampler {
 public:
  explicit Sampler(int32_t vocab_size);

  // The next token; nothing when a logit is not finite or every id is masked.
  std::optional<int32_t> sample(std::span<const float> logits, const SamplingContext& context);

  // Of the model's own distribution (raw logits): the token's logprob and the k likeliest, likeliest first,
  // lower id first among equals. Nothing when a logit is not finite. `top` is valid until the next call.
  struct Logprobs {
    float logprob = 0.0f;
    std::span<const TokenLogprob> top;
  };
  std::optional<Logprobs> logprobs(std::span<const float> logits, int32_t token, int32_t k);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  struct Weighted {
    uint64_t weight;
    int32_t id;
  };
  std::span<const float> adjust(std::span<const float> logits, const SamplingContext& context);
  void penalise(const SamplingContext& context);
  std::span<Candidate> select_top(std::span<const float> logits, int32_t k);
  int32_t draw_from_all(std::span<const float> logits, float max, const SamplingContext& context);
  uint64_t keep_nucleus(uint64_t target);
  int32_t draw_from_some(std::span<const float> logits, float max, const SamplingContext& context);

  std::vector<float> adjusted_;      // [vocab]
  std::vector<float> exponentials_;  // [vocab]
  std::vector<Candidate> candidates_;
  std::vector<Weighted> weighted_, ranked_;
  std::vector<int32_t> counts_;  // [vocab]: occurrences in the output; all zero between calls
  std::vector<uint8_t> seen_;    // [vocab]: occurs in prompt or output; all zero between calls
  std::vector<TokenLogprob> top_;
};

}  // namespace tramontane
