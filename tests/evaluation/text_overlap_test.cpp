// Against values computed by rouge-score and sacrebleu themselves (make_overlap_cases.py).
#include "evaluation/text_overlap.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace tramontane {
namespace {

nlohmann::json overlap_cases() {
  std::ifstream file(TRAMONTANE_SOURCE_DIR "/tests/evaluation/data/overlap_cases.json");
  return nlohmann::json::parse(file);
}

TEST(TextOverlap, TokensAreSacrebleus) {
  for (const auto& c : overlap_cases()) {
    EXPECT_EQ(tokenize_13a(c["candidate"].get<std::string>()),
              c["tokens_13a"].get<std::vector<std::string>>())
        << c;
  }
}

TEST(TextOverlap, ScoresAreTheLibraries) {
  const auto cases = overlap_cases();
  ASSERT_GT(cases.size(), 80u);
  for (const auto& c : cases) {
    const auto candidate = c["candidate"].get<std::string>(), reference = c["reference"].get<std::string>();
    EXPECT_NEAR(rouge_l_f1(candidate, reference), c["rouge_l_f1"].get<double>(), 1e-12) << c;
    const BleuScore bleu = sentence_bleu(candidate, reference);
    EXPECT_NEAR(bleu.score, c["bleu"].get<double>(), 1e-9) << c;
    EXPECT_NEAR(bleu.length_ratio, c["length_ratio"].get<double>(), 1e-12) << c;
  }
}

}  // namespace
}  // namespace tramontane
