// How far two models' predictions of one position lie apart. Pure functions, callable from any thread.
// Logarithms are natural; sums are in FP64.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace tramontane {

struct PositionDrift {
  double kl = 0;                 // KL(reference || candidate), nats, >= 0
  double reference_logprob = 0;  // of the reference's token
  double candidate_logprob = 0;
  int32_t candidate_token = -1;  // the candidate's likeliest token
  bool agree = false;            // it is the reference's token
  // How much likelier the model holds its own token than the other's, as log of the ratio; 0 when they agree.
  double reference_margin = 0, candidate_margin = 0;
};

// `reference` and `candidate`: logits [vocab_size] of the same position; `token`: what the reference says
// there (its likeliest).
PositionDrift compare_position(std::span<const float> reference, std::span<const float> candidate,
                               int32_t token);

// log(sum(exp(logits))).
double log_sum_exp(std::span<const float> logits);

// The value that a share of all values does not exceed, by linear interpolation between neighbours (numpy's
// default); 0 for none.
double percentile(std::vector<double> values, double share);

}  // namespace tramontane
