// The arithmetic of sampling, shared by the host's sampler and the device's kernels, so that both give the
// same ids. Single IEEE operations in a fixed order: every file that includes this is compiled without
// contraction. Pure functions; any thread.
#pragma once

#include <bit>
#include <cstdint>

namespace tramontane {

// Adjusted logits stay within this, so that a difference of two of them is finite.
inline constexpr float kMaxLogit = 1e30f;
// A probability of 1 (that of the likeliest token) as a weight.
inline constexpr float kWeightOne = 0x1p40f;

constexpr float clamp_logit(float logit) {
  return logit < -kMaxLogit ? -kMaxLogit : kMaxLogit < logit ? kMaxLogit : logit;
}

// A token that occurs in the prompt or in the output, `count` times in the output. Repetition as in CTRL
// (Keskar et al. 2019), presence and frequency as OpenAI defines them.
constexpr float penalised(float logit, int32_t count, float repetition, float presence, float frequency) {
  const float scaled = logit > 0.0f ? logit / repetition : logit * repetition;
  return clamp_logit(scaled - (frequency * static_cast<float>(count) + (count > 0 ? presence : 0.0f)));
}

// exp(x) for x <= 0, within 3 units in the last place, written so that loops over it become vector code;
// below -87 it is 0. x = n ln2 + r with |r| <= ln2/2 (ln2 in two parts: Cody and Waite 1980); Taylor's
// polynomial of degree 7 is within r^8/8! < 6e-9.
constexpr float fast_exp(float x) {
  const float clamped = x < -87.0f ? -87.0f : x;
  constexpr float kRound = 0x1.8p23f;  // adding it leaves an integer in the low bits
  const float shifted = clamped * 0x1.715476p0f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) << 23;  // n, moved to where the exponent is
  const float result = std::bit_cast<float>(std::bit_cast<uint32_t>(p) + exponent);
  return x < -87.0f ? 0.0f : result;
}

// floor(2^40 · exponential)
constexpr uint64_t weight_of(float exponential) {
  return static_cast<uint64_t>(static_cast<int64_t>(exponential * kWeightOne));
}

// An integer >= x for 0 <= x < 2^62.
constexpr uint64_t round_up(double x) {
  const auto whole = static_cast<uint64_t>(static_cast<int64_t>(x));
  return whole + (static_cast<double>(whole) < x ? 1 : 0);
}

// The least weight that min_p keeps.
constexpr uint64_t min_p_weight(float min_p) {
  return round_up(double{min_p} * double{kWeightOne});
}

// The weight that top_p's likeliest tokens must reach together.
constexpr uint64_t top_p_target(float top_p, uint64_t total) {
  return round_up(double{top_p} * static_cast<double>(total));
}

// A token below (1 - p) / n of the total of n weights cannot be among those: all such tokens together weigh
// less than 1 - p. Usually that leaves few.
constexpr uint64_t top_p_hopeless(float top_p, uint64_t total, int64_t n) {
  const double rest = (1.0 - double{top_p}) * static_cast<double>(total) / static_cast<double>(n);
  return static_cast<uint64_t>(static_cast<int64_t>(rest));
}

// bits / 2^64 * total, rounded down: exact, and < total.
constexpr uint64_t scale_bits(uint64_t bits, uint64_t total) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((Wide{bits} * total) >> 64);
}

}  // namespace tramontane
