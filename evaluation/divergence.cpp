#include "evaluation/divergence.h"

#include <algorithm>
#include <cmath>

#include "engine/backend/check.h"
#include "evaluation/model_runner.h"

namespace tramontane {

double log_sum_exp(std::span<const float> logits) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - top);
  return top + std::log(sum);
}

PositionDrift compare_position(std::span<const float> reference, std::span<const float> candidate,
                               int32_t token) {
  CHECK_EQ(reference.size(), candidate.size());
  CHECK_GE(token, 0);
  CHECK_LT(static_cast<size_t>(token), reference.size());
  const double reference_norm = log_sum_exp(reference), candidate_norm = log_sum_exp(candidate);
  PositionDrift drift;
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double p = reference[i] - reference_norm, q = candidate[i] - candidate_norm;
    kl += std::exp(p) * (p - q);
  }
  drift.kl = std::max(kl, 0.0);  // rounding may leave it a hair below
  drift.reference_logprob = reference[token] - reference_norm;
  drift.candidate_logprob = candidate[token] - candidate_norm;
  drift.candidate_token = argmax(candidate);
  drift.agree = drift.candidate_token == token;
  drift.reference_margin = double{reference[token]} - reference[drift.candidate_token];
  drift.candidate_margin = double{candidate[drift.candidate_token]} - candidate[token];
  return drift;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = share * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

}  // namespace tramontane
