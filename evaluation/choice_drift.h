// Drift on multiple-choice items: which option a model holds likeliest, by length-normalised log-likelihood,
// and where that flips. One thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "evaluation/model_runner.h"
#include "evaluation/questions.h"

namespace tramontane {

// scores[item][option]: mean log-probability per token of the option's text as the answer, nats.
using ChoiceScores = std::vector<std::vector<double>>;

struct EncodedChoice {
  std::vector<int32_t> prompt;
  std::vector<std::vector<int32_t>> options;  // none empty
};

int32_t longest_choice(const std::vector<EncodedChoice>& items);
ChoiceScores score_choices(ModelRunner& model, const std::vector<EncodedChoice>& items,
                           const ModelRunner::DoneSink& done = {});

// An item whose chosen option differs.
struct ChoiceFlip {
  size_t item = 0;
  int32_t from = 0, to = 0;  // options chosen by the reference and the candidate
  // By how much each prefers its own choice to the other's, nats per token; exp of it is the likelihood
  // ratio.
  double reference_margin = 0, candidate_margin = 0;
};

struct ChoiceSummary {
  size_t items = 0;
  std::vector<ChoiceFlip> flips;
  double flip_share = 0;
  size_t reference_unknown = 0;      // items with an unknown option where the reference chose it
  size_t left_unknown = 0;           // of them, the candidate chose another
  size_t unknown_to_stereotype = 0;  // of them, the stereotyped one, where the item names it
  size_t gold_items = 0, reference_right = 0, candidate_right = 0;
  // The largest change of any item's preference between two options, nats per token.
  double max_margin_change = 0;
};

ChoiceSummary summarize(const std::vector<ChoiceItem>& items, const ChoiceScores& reference,
                        const ChoiceScores& candidate);

// The index of the best option, the lowest of equal ones.
int32_t chosen_option(const std::vector<double>& scores);

}  // namespace tramontane
