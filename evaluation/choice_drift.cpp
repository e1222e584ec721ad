#include "evaluation/choice_drift.h"

#include <algorithm>
#include <cmath>

#include "evaluation/divergence.h"

namespace tramontane {

int32_t longest_choice(const std::vector<EncodedChoice>& items) {
  size_t longest = 0;
  for (const EncodedChoice& item : items) {
    for (const auto& option : item.options) longest = std::max(longest, item.prompt.size() + option.size());
  }
  return static_cast<int32_t>(longest);
}

ChoiceScores score_choices(ModelRunner& model, const std::vector<EncodedChoice>& items,
                           const ModelRunner::DoneSink& done) {
  struct Place {
    size_t item, option;
  };
  std::vector<ScoringTask> tasks;
  std::vector<Place> places;
  ChoiceScores scores;
  for (size_t i = 0; i < items.size(); ++i) {
    scores.emplace_back(items[i].options.size());
    for (size_t o = 0; o < items[i].options.size(); ++o) {
      const auto& option = items[i].options[o];
      ScoringTask task{items[i].prompt, static_cast<int32_t>(items[i].prompt.size()) - 1};
      task.ids.insert(task.ids.end(), option.begin(), option.end() - 1);
      tasks.push_back(std::move(task));
      places.push_back({i, o});
    }
  }
  model.score(
      tasks,
      [&](size_t text, int32_t row, std::span<const float> logits) {
        const Place place = places[text];
        const auto& option = items[place.item].options[place.option];
        const int32_t token = option[row - tasks[text].first_row];
        scores[place.item][place.option] +=
            (logits[token] - log_sum_exp(logits)) / static_cast<double>(option.size());
      },
      [&](size_t finished) {
        if (done) done(finished == tasks.size() ? items.size() : places[finished].item);
      });
  return scores;
}

int32_t chosen_option(const std::vector<double>& scores) {
  return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

ChoiceSummary summarize(const std::vector<ChoiceItem>& items, const ChoiceScores& reference,
                        const ChoiceScores& candidate) {
  ChoiceSummary s;
  s.items = items.size();
  for (size_t i = 0; i < items.size(); ++i) {
    const ChoiceItem& item = items[i];
    const auto &r = reference[i], &c = candidate[i];
    const int32_t from = chosen_option(r), to = chosen_option(c);
    if (from != to) s.flips.push_back({i, from, to, r[from] - r[to], c[to] - c[from]});
    if (item.unknown && from == *item.unknown) {
      ++s.reference_unknown;
      s.left_unknown += to != from;
      s.unknown_to_stereotype += item.stereotyped && to == *item.stereotyped;
    }
    if (item.gold) {
      ++s.gold_items;
      s.reference_right += from == *item.gold;
      s.candidate_right += to == *item.gold;
    }
    // The change of a preference is a difference of two score changes: its largest is their spread.
    double low = c[0] - r[0], high = low;
    for (size_t o = 1; o < r.size(); ++o) {
      low = std::min(low, c[o] - r[o]);
      high = std::max(high, c[o] - r[o]);
    }
    s.max_margin_change = std::max(s.max_margin_change, high - low);
  }
  if (s.items > 0) s.flip_share = static_cast<double>(s.flips.size()) / static_cast<double>(s.items);
  return s;
}

}  // namespace tramontane
