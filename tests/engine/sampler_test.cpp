#include "engine/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "engine/backend/philox.h"

namespace tramontane {
namespace {

using testing::ElementsAre;

// Known answers from the authors' Random123 distribution (tests/kat_vectors).
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(philox4x32({0, 0, 0, 0}, {0, 0}), ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

std::vector<float> random_logits(uint32_t seed, size_t n, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The definition, written plainly: probabilities in double after each rule, by a full sort. Zero: cut off.
std::vector<double> reference_distribution(const std::vector<float>& logits, const SamplingParams& p) {
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  const double max = logits[order[0]];
  std::vector<double> probability(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    probability[i] = std::exp((double{logits[i]} - max) / double{p.temperature});
  if (p.top_k > 0) {
    for (size_t rank = static_cast<size_t>(p.top_k); rank < order.size(); ++rank)
      probability[order[rank]] = 0;
  }
  const double total = std::accumulate(probability.begin(), probability.end(), 0.0);
  double before = 0;
  for (const size_t i : order) {
    const double own = probability[i];
    if (before >= double{p.top_p} * total) probability[i] = 0;
    before += own;
  }
  for (double& value : probability) {
    if (value < double{p.min_p}) value = 0;
  }
  const double kept = std::accumulate(probability.begin(), probability.end(), 0.0);
  for (double& value : probability) value /= kept;
  return probability;
}

int32_t draw(Sampler& sampler, const std::vector<float>& logits, const SamplingParams& params,
             uint64_t seed) {
  const std::vector<int32_t> tokens = {0};
  return sampler
      .sample(logits, {.params = params, .tokens = tokens, .n_prompt = 1, .masked = {}, .seed = seed})
      .value();
}

struct DrawCase {
  const char* name;
  float temperature, top_p;
  int32_t top_k;
  float min_p;
};

class SamplerDraws : public testing::TestWithParam<DrawCase> {};

// 20,000 draws with fixed seeds: only tokens of the reference's support, each as often as it should be:
// chi-square over those expected at least 10 times stays below mean + 5 standard deviations of its
// distribution.
TEST_P(SamplerDraws, FollowTheReferenceDistribution) {
  const DrawCase& c = GetParam();
  SamplingParams params;
  params.temperature = c.temperature;
  params.top_p = c.top_p;
  params.top_k = c.top_k;
  params.min_p = c.min_p;
  const std::vector<float> logits = random_logits(7, 1000, 2.0f);
  const std::vector<double> expected = reference_distribution(logits, params);
  Sampler sampler(1000);
  constexpr int kDraws = 20000;
  std::vector<int> count(logits.size());
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    const int32_t token = draw(sampler, logits, params, seed);
    ASSERT_GT(expected[token], 0.0) << "token " << token << " is cut off";
    ++count[token];
  }
  double chi_square = 0;
  int cells = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double mean = expected[i] * kDraws;
    if (mean < 10) continue;
    chi_square += (count[i] - mean) * (count[i] - mean) / mean;
    ++cells;
  }
  ASSERT_GE(cells, 1);
  EXPECT_LT(chi_square, cells + 5 * std::sqrt(2.0 * cells)) << cells << " cells";
}

INSTANTIATE_TEST_SUITE_P(
    Rules, SamplerDraws,
    testing::Values(DrawCase{"plain", 1.0f, 1.0f, 0, 0.0f}, DrawCase{"hot", 2.5f, 1.0f, 0, 0.0f},
                    DrawCase{"cold", 0.3f, 1.0f, 0, 0.0f}, DrawCase{"top_k", 1.0f, 1.0f, 10, 0.0f},
                    DrawCase{"top_p", 1.0f, 0.8f, 0, 0.0f}, DrawCase{"min_p", 1.0f, 1.0f, 0, 0.2f},
                    DrawCase{"all", 0.8f, 0.9f, 40, 0.05f}, DrawCase{"narrow_top_p", 1.0f, 0.1f, 0, 0.0f},
                    DrawCase{"flat_top_p", 100.0f, 0.95f, 0, 0.0f}),
    [](const auto& test) { return std::string(test.param.name); });

// Cutting off only what is never drawn changes no draw, whichever way the sampler takes: intervals are given
// out by id.
TEST(Sampler, DrawsTheSameBySumsBySelectionAndByNucleus) {
  std::vector<float> logits = random_logits(3, 200, 1.0f);
  logits[77] = -200.0f;  // below 2^-40 of the likeliest
  Sampler sampler(200);
  SamplingParams plain, selected, nucleus;
  selected.top_k = 199;
  nucleus.top_p = 0.99999994f;  // everything is needed to reach it
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const int32_t token = draw(sampler, logits, plain, seed);
    ASSERT_EQ(draw(sampler, logits, selected, seed), token) << seed;
    ASSERT_EQ(draw(sampler, logits, nucleus, seed), token) << seed;
  }
}

// The set that top_k and top_p keep, exactly: on 300 rows the cumulative draw of every kept token is
// reachable, nothing else is.
TEST(Sampler, KeepsExactlyTheReferenceSet) {
  Sampler sampler(50);
  for (uint32_t row = 0; row < 30; ++row) {
    const std::vector<float> logits = random_logits(row + 100, 50, 1.0f);
    SamplingParams params;
    params.top_p = 0.3f + 0.02f * static_cast<float>(row);
    params.top_k = row % 3 == 0 ? 0 : 20;
    const std::vector<double> expected = reference_distribution(logits, params);
    std::vector<bool> drawn(50);
    for (uint64_t seed = 0; seed < 3000; ++seed) drawn[draw(sampler, logits, params, seed)] = true;
    for (size_t i = 0; i < 50; ++i) {
      const bool expect = expected[i] > 0;
      if (!expect || expected[i] > 0.005) {
        EXPECT_EQ(drawn[i], expect) << "row " << row << " token " << i;
      }
    }
  }
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  Sampler sampler(100);
  SamplingParams params;
  params.temperature = 0;
  std::vector<float> logits(100, 1.0f);
  logits[17] = logits[18] = logits[99] = 2.0f;
  EXPECT_EQ(draw(sampler, logits, params, 0), 17);
  logits[99] = 2.5f;
  EXPECT_EQ(draw(sampler, logits, params, 0), 99);
  std::fill(logits.begin(), logits.end(), -3.0f);
  EXPECT_EQ(draw(sampler, logits, params, 0), 0);
}

TEST(Sampler, TiesAtTheTopKBorderGoToTheLowerId) {
  Sampler sampler(200);
  SamplingParams params;
  params.top_k = 3;
  std::vector<float> logits(200, 0.0f);
  logits[150] = 1.0f;
  std::map<int32_t, int> counts;
  for (uint64_t seed = 0; seed < 2000; ++seed) ++counts[draw(sampler, logits, params, seed)];
  EXPECT_EQ(counts.size(), 3u);
  EXPECT_TRUE(counts.contains(0) && counts.contains(1) && counts.contains(150));
}

TEST(Sampler, DrawDependsOnSeedAndPositionOnly) {
  Sampler sampler(1000);
  const std::vector<float> logits = random_logits(3, 1000, 1.0f);
  SamplingParams params;
  const std::vector<int32_t> a = {1, 2, 3}, b = {7, 8, 9}, longer = {1, 2, 3, 4};
  const auto at = [&](const std::vector<int32_t>& tokens, uint64_t seed) {
    return sampler
        .sample(logits, {.params = params, .tokens = tokens, .n_prompt = 1, .masked = {}, .seed = seed})
        .value();
  };
  int other_seed = 0, other_position = 0;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    EXPECT_EQ(at(a, seed), at(b, seed));
    other_seed += at(a, seed) != at(a, seed + 1);
    other_position += at(a, seed) != at(longer, seed);
  }
  EXPECT_GT(other_seed, 80);
  EXPECT_GT(other_position, 80);
}

// tokens: prompt 5 5, output 6 6 7.
TEST(Sampler, PenaltiesAndBiasAsDefined) {
  Sampler sampler(8);
  const std::vector<int32_t> tokens = {5, 5, 6, 6, 7};
  const std::vector<float> logits = {0.0f, 0.1f, 0.2f, -1.0f, -1.0f, 3.0f, 2.9f, 2.8f};
  SamplingParams params;
  params.temperature = 0;
  const auto best = [&] {
    return sampler
        .sample(logits, {.params = params, .tokens = tokens, .n_prompt = 2, .masked = {}, .seed = 0})
        .value();
  };
  EXPECT_EQ(best(), 5);
  params.repetition_penalty = 1.1f;  // 2.73, 2.64, 2.55: over prompt and output alike
  EXPECT_EQ(best(), 5);
  params.repetition_penalty = 20.0f;  // 0.15, 0.145, 0.14: below token 2
  EXPECT_EQ(best(), 2);
  params.repetition_penalty = 1.0f;
  params.presence_penalty = -0.15f;  // output only, once each: 6 -> 3.05, 7 -> 2.95; 5 stays
  EXPECT_EQ(best(), 6);
  params.presence_penalty = 0.0f;
  params.frequency_penalty = 0.2f;   // 6 -> 2.5, 7 -> 2.6
  params.logit_bias = {{5, -0.5f}};  // 5 -> 2.5
  EXPECT_EQ(best(), 7);
  params.frequency_penalty = 0.0f;
  params.logit_bias = {{3, 100.0f}};
  EXPECT_EQ(best(), 3);
  params.logit_bias = {{3, 5.0f}, {5, -100.0f}};
  params.repetition_penalty = 2.0f;  // 3 -> 4, the repeated ones halve
  EXPECT_EQ(best(), 3);
  params.repetition_penalty = 1.0f;
  params.logit_bias.clear();
  EXPECT_EQ(best(), 5) << "the counters are clean again";
}

TEST(Sampler, NegativeLogitsAreMultipliedByTheRepetitionPenalty) {
  Sampler sampler(3);
  const std::vector<int32_t> tokens = {0};
  const std::vector<float> logits = {-1.0f, -1.5f, -3.0f};
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 1.6f;  // CTRL as practised: -1 -> -1.6, less likely, not more
  EXPECT_EQ(
      sampler.sample(logits, {.params = params, .tokens = tokens, .n_prompt = 1, .masked = {}, .seed = 0}),
      1);
}

TEST(Sampler, MaskedIdsAreNeverDrawn) {
  Sampler sampler(40);
  const std::vector<int32_t> tokens = {0}, masked = {0, 3};
  std::vector<float> logits(40, 0.0f);
  logits[3] = 50.0f;
  SamplingParams params;
  for (const int32_t top_k : {0, 39, 2}) {
    params.top_k = top_k;
    for (uint64_t seed = 0; seed < 200; ++seed) {
      const auto token = sampler.sample(
          logits, {.params = params, .tokens = tokens, .n_prompt = 1, .masked = masked, .seed = seed});
      ASSERT_TRUE(token != 0 && token != 3);
    }
  }
  std::vector<int32_t> all(40);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(
      sampler.sample(logits, {.params = params, .tokens = tokens, .n_prompt = 1, .masked = all, .seed = 0}),
      std::nullopt);
}

TEST(Sampler, RefusesLogitsThatAreNotFinite) {
  Sampler sampler(33);
  SamplingParams params;
  const std::vector<int32_t> tokens = {0};
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const size_t where : {size_t{0}, size_t{15}, size_t{32}}) {
      std::vector<float> logits(33, 1.0f);
      logits[where] = bad;
      EXPECT_EQ(sampler.sample(logits,
                               {.params = params, .tokens = tokens, .n_prompt = 1, .masked = {}, .seed = 0}),
                std::nullopt);
      EXPECT_FALSE(sampler.logprobs(logits, 0, 5).has_value());
    }
  }
}

TEST(Sampler, SurvivesExtremeValues) {
  Sampler sampler(4);
  const std::vector<int32_t> tokens = {0, 1, 2, 3};
  const float big = std::numeric_limits<float>::max();
  SamplingParams params;
  for (const std::vector<float>& logits :
       {std::vector<float>{big, -big, 0, 1}, std::vector<float>{big, big, big, big},
        std::vector<float>{-big, -big, -big, -big}, std::vector<float>{1e-45f, 0, -1e-45f, 0}}) {
    for (const float temperature : {1e-45f, 1e-6f, 1.0f, 100.0f}) {
      for (const float penalty : {0.01f, 1.0f, 100.0f}) {
        params.temperature = temperature;
        params.repetition_penalty = penalty;
        params.top_p = penalty == 1.0f ? 1.0f : 1e-6f;
        params.min_p = 1.0f;
        const auto token = sampler.sample(
            logits, {.params = params, .tokens = tokens, .n_prompt = 2, .masked = {}, .seed = 1});
        ASSERT_TRUE(token && *token >= 0 && *token < 4);
      }
    }
    ASSERT_TRUE(sampler.logprobs(logits, 1, 4).has_value());
  }
}

TEST(Sampler, LogprobsMatchLogSoftmaxInDouble) {
  Sampler sampler(5000);
  for (uint32_t seed = 0; seed < 20; ++seed) {
    std::vector<float> logits = random_logits(seed, 5000, 0.5f + static_cast<float>(seed));
    logits[77] = logits[4000];  // a tie
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit} - max);
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    const auto result = sampler.logprobs(logits, 123, 20);
    ASSERT_TRUE(result.has_value());
    // log(sum) is within the exponential's relative error, 3 * 2^-24; the rounding to float adds 2^-24 of the
    // value.
    const auto tolerance = [](double value) { return 4e-7 + std::abs(value) * 6e-8; };
    const double own = double{logits[123]} - max - std::log(sum);
    EXPECT_NEAR(result->logprob, own, tolerance(own));
    ASSERT_EQ(result->top.size(), 20u);
    for (size_t i = 0; i < 20; ++i) {
      const double expected = double{logits[order[i]]} - max - std::log(sum);
      EXPECT_EQ(result->top[i].token, static_cast<int32_t>(order[i]));
      EXPECT_NEAR(result->top[i].logprob, expected, tolerance(expected));
    }
  }
}

}  // namespace
}  // namespace tramontane
