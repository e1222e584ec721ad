#include "evaluation/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

#include "evaluation/choice_drift.h"
#include "evaluation/logit_store.h"
#include "evaluation/prompt_drift.h"

namespace tramontane {
namespace {

// Logits of the probabilities, shifted: a softmax does not see the shift.
std::vector<float> logits_of(std::initializer_list<double> probabilities, double shift) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + shift));
  return logits;
}

TEST(Divergence, IsTheTextbooks) {
  const auto p = logits_of({0.5, 0.3, 0.2}, 7), q = logits_of({0.25, 0.6, 0.15}, -3);
  const PositionDrift drift = compare_position(p, q, 0);
  EXPECT_NEAR(drift.kl, 0.5 * std::log(2.0) + 0.3 * std::log(0.5) + 0.2 * std::log(4.0 / 3), 1e-6);
  EXPECT_NEAR(drift.reference_logprob, std::log(0.5), 1e-6);
  EXPECT_NEAR(drift.candidate_logprob, std::log(0.25), 1e-6);
  EXPECT_EQ(drift.candidate_token, 1);
  EXPECT_FALSE(drift.agree);
  EXPECT_NEAR(drift.reference_margin, std::log(0.5 / 0.3), 1e-6);
  EXPECT_NEAR(drift.candidate_margin, std::log(0.6 / 0.25), 1e-6);
}

TEST(Divergence, OfAModelFromItselfIsExactlyZero) {
  const auto p = logits_of({0.7, 0.1, 0.1, 0.1}, 50);
  const PositionDrift drift = compare_position(p, p, 0);
  EXPECT_EQ(drift.kl, 0);
  EXPECT_TRUE(drift.agree);
  EXPECT_EQ(drift.reference_margin, 0);
}

TEST(Divergence, PercentilesAreNumpys) {
  EXPECT_DOUBLE_EQ(percentile({4, 1, 3, 2}, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile({4, 1, 3, 2}, 0.95), 3.85);
  EXPECT_DOUBLE_EQ(percentile({5}, 0.95), 5);
  EXPECT_DOUBLE_EQ(percentile({}, 0.5), 0);
}

TEST(Divergence, SummaryCountsPositionsNotPrompts) {
  PromptDrift a, b;
  a.positions = {
      {.kl = 1, .reference_logprob = -1, .candidate_logprob = -2, .agree = true},
      {.kl = 3, .reference_logprob = -1, .candidate_logprob = -2, .agree = false, .reference_margin = 0.5}};
  a.first_divergence = 1;
  a.rouge_l = 0.5;
  b.positions = {{.kl = 2, .reference_logprob = -1, .candidate_logprob = -2, .agree = true}};
  b.rouge_l = 1;
  const DriftSummary s = summarize({a, b});
  EXPECT_EQ(s.positions, 3u);
  EXPECT_DOUBLE_EQ(s.kl_mean, 2);
  EXPECT_DOUBLE_EQ(s.kl_max, 3);
  EXPECT_DOUBLE_EQ(s.top1_agreement, 2.0 / 3);
  EXPECT_DOUBLE_EQ(s.reference_perplexity, std::exp(1.0));
  EXPECT_NEAR(s.perplexity_shift, std::exp(1.0) - 1, 1e-12);
  EXPECT_EQ(s.changed, 1u);
  EXPECT_DOUBLE_EQ(s.median_first_divergence, 1);
  EXPECT_DOUBLE_EQ(s.median_margin, 0.5);
  EXPECT_DOUBLE_EQ(s.rouge_l, 0.75);
}

TEST(Choices, FlipsAreCountedWithTheirMargins) {
  std::vector<ChoiceItem> items(3);
  for (ChoiceItem& item : items) {
    item.options = {"she", "he", "unknown"};
    item.unknown = 2;
    item.stereotyped = 1;
    item.gold = 2;
  }
  const ChoiceScores reference = {{-3, -2, -1}, {-3, -2, -1}, {-1, -2, -3}};
  const ChoiceScores candidate = {{-3, -1, -1.5}, {-1, -3, -2}, {-1, -2.25, -3}};
  const ChoiceSummary s = summarize(items, reference, candidate);
  ASSERT_EQ(s.flips.size(), 2u);
  EXPECT_EQ(s.flips[0].from, 2);
  EXPECT_EQ(s.flips[0].to, 1);
  EXPECT_DOUBLE_EQ(s.flips[0].reference_margin, 1);
  EXPECT_DOUBLE_EQ(s.flips[0].candidate_margin, 0.5);
  EXPECT_DOUBLE_EQ(s.flip_share, 2.0 / 3);
  EXPECT_EQ(s.reference_unknown, 2u);
  EXPECT_EQ(s.left_unknown, 2u);
  EXPECT_EQ(s.unknown_to_stereotype, 1u);
  EXPECT_EQ(s.reference_right, 2u);
  EXPECT_EQ(s.candidate_right, 0u);
  EXPECT_DOUBLE_EQ(s.max_margin_change, 3);  // item 1: "she" +2, "he" -1
}

TEST(LogitStore, GivesBackRowsInAnyOrder) {
  LogitStore store(3);
  for (const float x : {1.0f, 2.0f, 3.0f}) store.append(std::vector<float>{x, x + 0.5f, -x});
  EXPECT_EQ(store.rows(), 3u);
  for (const size_t row : {2u, 0u, 1u}) {
    const auto x = static_cast<float>(row + 1);
    const auto values = store.read(row);
    EXPECT_EQ(std::vector<float>(values.begin(), values.end()), (std::vector<float>{x, x + 0.5f, -x}));
  }
  store.append(std::vector<float>{9, 9, 9});
  EXPECT_EQ(store.read(3)[0], 9);
}

}  // namespace
}  // namespace tramontane
