#include "evaluation/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpu/cpu_backend.h"
#include "tests/support/golden.h"

namespace tramontane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Compare : public testing::Test {
 protected:
  Comparison run(const CompareInput& input) {
    const std::shared_ptr<const Tokenizer> tokenizer =
        load_sentencepiece_tokenizer((*find_golden("tiny-v0.3-bf16") / "tokenizer.model.v3").string());
    const ChatTemplate chat_template(tokenizer, ChatFormat::v3);
    return compare(
        input, chat_template, *tokenizer,
        [](bool f32) { return make_cpu_backend({.threads = 1, .kernels = {}, .f32 = f32}); },
        [](const std::string&, size_t, size_t) {});
  }

  static std::vector<Prompt> prompts() {
    std::vector<Prompt> prompts;
    for (const char* text : {"What is 2+2?", "Tell me about the licence.", "Hello!", "Who wrote this?"}) {
      prompts.push_back(prompt_of_text(text));
    }
    return prompts;
  }

  static std::vector<ChoiceItem> items() {
    std::vector<ChoiceItem> items(2);
    items[0] = {.id = "sum",
                .question = "What is 2+2?",
                .options = {"2 + 2 = 4.", "Seven apples", "I do not know."},
                .gold = 0,
                .unknown = 2,
                .stereotyped = {}};
    items[1] = {.id = "who",
                .question = "Who wrote this?",
                .options = {"A man", "A woman"},
                .gold = {},
                .unknown = {},
                .stereotyped = {}};
    return items;
  }
};

TEST_F(Compare, AModelWithItselfDoesNotDrift) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  const Comparison c = run({.reference = model,
                            .candidates = {model, model},
                            .prompts = prompts(),
                            .items = {},
                            .max_tokens = 16,
                            .noise_floor = false});
  ASSERT_EQ(c.columns.size(), 2u);
  for (const CompareColumn& column : c.columns) {
    EXPECT_EQ(column.model.name, "tiny-v0.3-bf16");
    EXPECT_EQ(column.drift.kl_max, 0);
    EXPECT_EQ(column.drift.top1_agreement, 1);
    EXPECT_EQ(column.drift.perplexity_shift, 0);
    EXPECT_EQ(column.drift.changed, 0u);
    for (size_t i = 0; i < c.answers.size(); ++i) EXPECT_EQ(column.prompts[i].answer, c.answers[i].answer);
  }
  EXPECT_EQ(c.answers[0].answer, "2 + 2 = 4.");
  EXPECT_EQ(c.answers[0].ids.back(), 2) << "the end of sequence is a position too";
  EXPECT_EQ(c.columns[0].prompts[0].rouge_l, 1);
}

TEST_F(Compare, FourBitsDriftMoreThanRounding) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(quantised, "tiny-v0.3-mlx-q4");
  const Comparison c = run(
      {.reference = model, .candidates = {quantised}, .prompts = prompts(), .items = {}, .max_tokens = 40});
  ASSERT_EQ(c.columns.size(), 2u);
  const DriftSummary &noise = c.columns[0].drift, &drift = c.columns[1].drift;
  EXPECT_TRUE(c.columns[0].noise_floor);
  EXPECT_GT(noise.kl_mean, 0);
  EXPECT_LT(noise.kl_mean, 0.005);
  EXPECT_GT(drift.kl_mean, 5 * noise.kl_mean);
  EXPECT_EQ(drift.positions, noise.positions);
  EXPECT_DOUBLE_EQ(drift.reference_perplexity, noise.reference_perplexity);
  EXPECT_GT(drift.candidate_perplexity, 1);
}

TEST_F(Compare, ScoresOptionsByLikelihoodPerToken) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(quantised, "tiny-v0.3-mlx-q4");
  const Comparison c = run({.reference = model,
                            .candidates = {model, quantised},
                            .prompts = {},
                            .items = items(),
                            .noise_floor = false});
  EXPECT_EQ(chosen_option(c.reference_scores[0]), 0) << "the toy was trained on this answer";
  EXPECT_GT(c.reference_scores[0][0], -1);
  EXPECT_LT(c.reference_scores[0][1], -1);
  EXPECT_EQ(c.columns[0].scores, c.reference_scores);
  EXPECT_NE(c.columns[1].scores, c.reference_scores);
  EXPECT_EQ(c.columns[0].choices.flips.size(), 0u);
  EXPECT_GT(c.columns[1].choices.max_margin_change, 0);
}

// Long and many texts need several steps and several fillings of the cache.
TEST_F(Compare, GroupingDoesNotChangeAnything) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  const auto backend = make_cpu_backend({.threads = 1, .kernels = {}});
  const auto checkpoint = Checkpoint::open(model);
  const auto text = [](int32_t n, int32_t seed) {
    std::vector<int32_t> ids = {1};
    while (std::ssize(ids) < n) ids.push_back((seed + 7919 * static_cast<int32_t>(ids.size())) % 32000 + 300);
    return ids;
  };
  std::vector<ScoringTask> tasks;
  for (int32_t i = 0; i < 40; ++i) tasks.push_back({text(i == 5 ? 700 : 20 + 3 * i, i), i == 5 ? 10 : 3});
  const auto sums = [&](std::span<const ScoringTask> some) {
    std::vector<std::vector<double>> rows(some.size());
    ModelRunner runner(*backend, *checkpoint, "tiny", 700);
    runner.score(some, [&](size_t t, int32_t row, std::span<const float> logits) {
      EXPECT_EQ(row, some[t].first_row + std::ssize(rows[t]));
      rows[t].push_back(log_sum_exp(logits));
    });
    return rows;
  };
  const auto together = sums(tasks);
  for (const size_t alone : {size_t{0}, size_t{5}, size_t{39}}) {
    EXPECT_EQ(together[alone].size(), tasks[alone].ids.size() - tasks[alone].first_row);
    EXPECT_EQ(sums(std::span(tasks).subspan(alone, 1))[0], together[alone]);
  }
}

TEST_F(Compare, UnequalVocabulariesAreRefusedWithBothSizes) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(other, "tiny-nf4-dq");
  try {
    run({.reference = model, .candidates = {model, other}, .prompts = prompts(), .items = {}});
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("tiny-nf4-dq"), HasSubstr("2048"), HasSubstr("32768")));
  }
}

TEST_F(Compare, PromptsTooLongForTheModelAreRefused) {
  GOLDEN_OR_SKIP(model, "tiny-v0.3-bf16");
  try {
    run({.reference = model,
         .candidates = {model},
         .prompts = prompts(),
         .items = {},
         .max_tokens = 1'000'000});
    FAIL() << "no error";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("takes"), HasSubstr("tokens")));
  }
}

}  // namespace
}  // namespace tramontane
