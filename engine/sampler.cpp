#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "engine/backend/check.h"
#include "engine/backend/philox.h"
#include "engine/backend/sampling_math.h"

namespace tramontane {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
// Independent maxima and sums: one vector of the widest instruction set in use, so that the compiler keeps
// each in a register lane.
constexpr size_t kLanes = 16;

bool all_finite(std::span<const float> values) {
  // The exponent of infinities and NaNs is all ones: adding one to it carries into the sign. Integers,
  // because the compiler may reorder them freely.
  uint32_t carries = 0;
  for (const float value : values) carries |= (std::bit_cast<uint32_t>(value) & 0x7f800000u) + 0x00800000u;
  return (carries >> 31) == 0;
}

// The largest value; no NaN among them.
float maximum(std::span<const float> values) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -kInfinity);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = values[i + j] > lanes[j] ? values[i + j] : lanes[j];
  }
  for (; i < values.size(); ++i) lanes[0] = std::max(lanes[0], values[i]);
  return *std::max_element(lanes, lanes + kLanes);
}

uint64_t bits_for(const SamplingContext& context) {
  return random_bits(context.seed, context.tokens.size());
}

}  // namespace

Sampler::Sampler(int32_t vocab_size) {
  CHECK_GE(vocab_size, 1);
  const auto n = static_cast<size_t>(vocab_size);
  adjusted_.resize(n);
  exponentials_.resize(n);
  candidates_.reserve(2 * n);
  weighted_.reserve(n);
  ranked_.reserve(n);
  counts_.assign(n, 0);
  seen_.assign(n, 0);
  top_.reserve(n);
}

std::optional<int32_t> Sampler::sample(std::span<const float> logits, const SamplingContext& context) {
  CHECK_EQ(logits.size(), counts_.size());
  if (!all_finite(logits)) return std::nullopt;
  const std::span<const float> values = adjust(logits, context);
  const float max = maximum(values);
  if (max == -kInfinity) return std::nullopt;  // everything is masked
  const SamplingParams& params = context.params;
  if (params.temperature == 0.0f || params.top_k == 1) {
    return static_cast<int32_t>(std::find(values.begin(), values.end(), max) - values.begin());
  }
  const bool whole =
      (params.top_k <= 0 || params.top_k >= static_cast<int32_t>(values.size())) && params.top_p >= 1.0f;
  return whole ? draw_from_all(values, max, context) : draw_from_some(values, max, context);
}

// The logits themselves when nothing changes them, else a changed copy.
std::span<const float> Sampler::adjust(std::span<const float> logits, const SamplingContext& context) {
  const SamplingParams& params = context.params;
  const bool penalties = params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
                         params.frequency_penalty != 0.0f;
  if (params.logit_bias.empty() && !penalties && context.masked.empty()) return logits;
  std::copy(logits.begin(), logits.end(), adjusted_.begin());
  for (const auto& [id, bias] : params.logit_bias) adjusted_[id] = clamp_logit(adjusted_[id] + bias);
  if (penalties) penalise(context);
  for (const int32_t id : context.masked) adjusted_[id] = -kInfinity;
  return adjusted_;
}

void Sampler::penalise(const SamplingContext& context) {
  const SamplingParams& params = context.params;
  for (const int32_t id : context.tokens) seen_[id] = 1;
  for (const int32_t id : context.tokens.subspan(context.n_prompt)) ++counts_[id];
  for (const int32_t id : context.tokens) {
    if (seen_[id] == 0) continue;  // done at its first occurrence
    adjusted_[id] = penalised(adjusted_[id], counts_[id], params.repetition_penalty, params.presence_penalty,
                              params.frequency_penalty);
    seen_[id] = 0;
    counts_[id] = 0;
  }
}

// No nucleus: the draw walks sums of 256 weights, then the weights of one such block.
int32_t Sampler::draw_from_all(std::span<const float> logits, float max, const SamplingContext& context) {
  const float temperature = context.params.temperature;
  const size_t n = logits.size();
  for (size_t i = 0; i < n; ++i) exponentials_[i] = fast_exp((logits[i] - max) / temperature);
  const uint64_t floor_weight = min_p_weight(context.params.min_p);
  const auto weight = [&](size_t i) {
    const uint64_t w = weight_of(exponentials_[i]);
    return w >= floor_weight ? w : 0;
  };
  constexpr size_t kBlock = 256;
  weighted_.clear();
  uint64_t total = 0;
  for (size_t first = 0; first < n; first += kBlock) {
    uint64_t sum = 0;
    for (size_t i = first; i < std::min(n, first + kBlock); ++i) sum += weight(i);
    weighted_.push_back({sum, static_cast<int32_t>(first)});
    total += sum;
  }
  uint64_t left = scale_bits(bits_for(context), total);
  size_t block = 0;
  while (left >= weighted_[block].weight) left -= weighted_[block++].weight;
  for (auto i = static_cast<size_t>(weighted_[block].id);; ++i) {
    const uint64_t w = weight(i);
    if (left < w) return static_cast<int32_t>(i);
    left -= w;
  }
}

// The k largest, in no particular order; the lower id among equals. One pass that keeps up to 2k and halves
// them when full.
std::span<Sampler::Candidate> Sampler::select_top(std::span<const float> logits, int32_t k) {
  const auto keep = std::min(static_cast<size_t>(k), logits.size());
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  const size_t capacity = std::max<size_t>(2 * keep, 64);
  candidates_.clear();
  float threshold = -kInfinity;
  bool full =
      false;  // from then on only larger values than the k-th may enter: ids ascend, so an equal one loses
  const auto shrink = [&] {
    if (candidates_.size() <= keep) return;
    std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(keep - 1),
                     candidates_.end(), better);
    candidates_.resize(keep);
    threshold = candidates_[keep - 1].logit;
    full = true;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (full && logits[i] <= threshold) continue;
    candidates_.push_back({logits[i], static_cast<int32_t>(i)});
    if (candidates_.size() == capacity) shrink();
  }
  shrink();
  return candidates_;
}

// Cuts weighted_ to the fewest likeliest tokens that reach the target together (the lower id among equals
// first), in the order they had; their sum. What is undecided is halved around its median until one token is
// left: linear in the number of tokens, however wide the nucleus.
uint64_t Sampler::keep_nucleus(uint64_t target) {
  const auto likelier = [](const Weighted& a, const Weighted& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  };
  ranked_.assign(weighted_.begin(), weighted_.end());
  auto first = ranked_.begin(), last = ranked_.end();
  uint64_t sum = 0;  // of all before `first`, which are kept; not enough
  while (last - first > 1) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, likelier);
    uint64_t upper = 0;
    for (auto w = first; w != middle; ++w) upper += w->weight;
    if (sum + upper >= target) {
      last = middle;
    } else {
      sum += upper;
      first = middle;
    }
  }
  const Weighted least = *first;
  std::erase_if(weighted_, [&](const Weighted& w) { return likelier(least, w); });
  return sum + least.weight;
}

int32_t Sampler::draw_from_some(std::span<const float> logits, float max, const SamplingContext& context) {
  const SamplingParams& params = context.params;
  const auto n = static_cast<int32_t>(logits.size());
  weighted_.clear();
  const auto keep = [&](float logit, int32_t id) {
    const uint64_t weight = weight_of(fast_exp((logit - max) / params.temperature));
    if (weight > 0) weighted_.push_back({weight, id});
  };
  if (params.top_k > 0 && params.top_k < n) {
    for (const Candidate& candidate : select_top(logits, params.top_k)) keep(candidate.logit, candidate.id);
    std::sort(weighted_.begin(), weighted_.end(),
              [](const Weighted& a, const Weighted& b) { return a.id < b.id; });
  } else {
    for (int32_t id = 0; id < n; ++id) exponentials_[id] = fast_exp((logits[id] - max) / params.temperature);
    for (int32_t id = 0; id < n; ++id) {
      const uint64_t weight = weight_of(exponentials_[id]);
      if (weight > 0) weighted_.push_back({weight, id});
    }
  }
  uint64_t total = 0;
  for (const Weighted& w : weighted_) total += w.weight;

  if (params.top_p < 1.0f) {
    const uint64_t hopeless = top_p_hopeless(params.top_p, total, static_cast<int64_t>(weighted_.size()));
    std::erase_if(weighted_, [&](const Weighted& w) { return w.weight < hopeless; });
    total = keep_nucleus(top_p_target(params.top_p, total));
  }
  if (params.min_p > 0.0f) {
    const uint64_t floor_weight = min_p_weight(params.min_p);
    std::erase_if(weighted_, [&](const Weighted& w) { return w.weight < floor_weight; });
    total = 0;
    for (const Weighted& w : weighted_) total += w.weight;
  }
  // Which interval of [0, total) a token gets depends on the order; by id, as they are here, it is a plain
  // function of the set.
  uint64_t left = scale_bits(bits_for(context), total);
  size_t i = 0;
  while (left >= weighted_[i].weight) left -= weighted_[i++].weight;
  return weighted_[i].id;
}

std::optional<Sampler::Logprobs> Sampler::logprobs(std::span<const float> logits, int32_t token, int32_t k) {
  if (!all_finite(logits)) return std::nullopt;
  const float max = maximum(logits);
  for (size_t i = 0; i < logits.size(); ++i) exponentials_[i] = fast_exp(logits[i] - max);
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) lanes[j] += double{exponentials_[i + j]};
  }
  for (; i < logits.size(); ++i) lanes[0] += double{exponentials_[i]};
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  const double log_total = double{max} + std::log(sum);
  const auto logprob = [&](float logit) { return static_cast<float>(double{logit} - log_total); };

  top_.clear();
  if (k > 0) {
    const std::span<Candidate> best = select_top(logits, k);
    std::sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) {
      return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    });
    for (const Candidate& candidate : best) top_.push_back({candidate.id, logprob(candidate.logit)});
  }
  return Logprobs{logprob(logits[token]), top_};
}

}  // namespace tramontane
