// How alike two answers are as texts: ROUGE-L F1 and sentence BLEU, by the definitions of the public packages
// rouge-score 0.1.2 (use_stemmer=False) and sacrebleu 2.6.0 (sentence_bleu: 13a tokens, exp smoothing,
// effective order). Pure functions, callable from any thread. Texts are UTF-8; invalid bytes are compared as
// bytes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tramontane {

// F1 of the longest common subsequence of lower-cased runs of [a-z0-9]: 0..1. 0 when either text has no such
// run, even if both are equal.
double rouge_l_f1(std::string_view candidate, std::string_view reference);

struct BleuScore {
  double score = 0;         // 0..100
  double length_ratio = 0;  // candidate tokens / reference tokens, 0 when the reference has none
};
BleuScore sentence_bleu(std::string_view candidate, std::string_view reference);

// mteval-v13a's tokens, as sacrebleu makes them.
std::vector<std::string> tokenize_13a(std::string_view text);

}  // namespace tramontane
