#include <nlohmann/json.hpp>

#include "evaluation/report.h"

namespace tramontane {
namespace {

using Json = nlohmann::ordered_json;

Json facts(const ModelFacts& model) {
  return {{"name", model.name},
          {"format", model.format},
          {"weight_bytes", model.bytes},
          {"backend", model.backend}};
}

template <typename T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json drift_json(const Comparison& comparison, const CompareColumn& column) {
  const DriftSummary& d = column.drift;
  return {{"positions", d.positions},
          {"kl_mean", d.kl_mean},
          {"kl_p95", d.kl_p95},
          {"kl_max", d.kl_max},
          {"top1_agreement", d.top1_agreement},
          {"reference_perplexity", d.reference_perplexity},
          {"candidate_perplexity", d.candidate_perplexity},
          {"perplexity_shift", d.perplexity_shift},
          {"prompts", d.prompts},
          {"answers_changed", d.changed},
          {"answers_changed_beyond_noise", or_null(changed_beyond_noise(comparison, column))},
          {"median_first_divergence", d.changed == 0 ? Json() : Json(d.median_first_divergence)},
          {"median_reference_margin_there", d.changed == 0 ? Json() : Json(d.median_margin)},
          {"rouge_l_f1", d.rouge_l},
          {"bleu", d.bleu},
          {"length_ratio", d.length_ratio}};
}

Json prompt_json(const PromptDrift& drift) {
  Json positions = Json::array();
  for (const PositionDrift& p : drift.positions) {
    positions.push_back({{"kl", p.kl},
                         {"reference_logprob", p.reference_logprob},
                         {"candidate_logprob", p.candidate_logprob},
                         {"agree", p.agree}});
  }
  Json divergence;
  if (drift.first_divergence) {
    const PositionDrift& p = drift.positions[*drift.first_divergence];
    divergence = {{"position", *drift.first_divergence},
                  {"reference_token", drift.reference_token},
                  {"candidate_token", drift.candidate_token},
                  {"reference_margin", p.reference_margin},
                  {"candidate_margin", p.candidate_margin}};
  }
  return {{"answer", drift.answer},
          {"rouge_l_f1", drift.rouge_l},
          {"bleu", drift.bleu},
          {"length_ratio", drift.length_ratio},
          {"first_divergence", divergence},
          {"positions", positions}};
}

Json choices_json(const Comparison& comparison, const CompareColumn& column) {
  const ChoiceSummary& s = column.choices;
  Json flips = Json::array();
  for (const ChoiceFlip& flip : s.flips) {
    flips.push_back({{"item", comparison.items[flip.item].id},
                     {"from", flip.from},
                     {"to", flip.to},
                     {"reference_margin", flip.reference_margin},
                     {"candidate_margin", flip.candidate_margin}});
  }
  return {{"items", s.items},
          {"flip_share", s.flip_share},
          {"flips_beyond_noise", or_null(flips_beyond_noise(comparison, column))},
          {"reference_unknown", s.reference_unknown},
          {"left_unknown", s.left_unknown},
          {"unknown_to_stereotype", s.unknown_to_stereotype},
          {"gold_items", s.gold_items},
          {"reference_right", s.reference_right},
          {"candidate_right", s.candidate_right},
          {"max_margin_change", s.max_margin_change},
          {"flips", flips}};
}

Json column_json(const Comparison& comparison, const CompareColumn& column) {
  Json json = facts(column.model);
  json["noise_floor"] = column.noise_floor;
  if (!comparison.answers.empty()) {
    json["drift"] = drift_json(comparison, column);
    json["prompts"] = Json::array();
    for (const PromptDrift& prompt : column.prompts) json["prompts"].push_back(prompt_json(prompt));
  }
  if (!comparison.items.empty()) {
    json["choices"] = choices_json(comparison, column);
    json["scores"] = column.scores;
  }
  return json;
}

}  // namespace

std::string json_report(const Comparison& comparison) {
  Json json = {{"reference", facts(comparison.reference)},
               {"vocab_size", comparison.vocab_size},
               {"max_tokens", comparison.max_tokens}};
  if (!comparison.answers.empty()) json["prompts"] = Json::array();
  for (const ReferenceAnswer& answer : comparison.answers) {
    json["prompts"].push_back(
        {{"prompt", answer.prompt}, {"answer", answer.answer}, {"tokens", answer.ids.size()}});
  }
  if (!comparison.items.empty()) json["items"] = Json::array();
  for (size_t i = 0; i < comparison.items.size(); ++i) {
    const ChoiceItem& item = comparison.items[i];
    json["items"].push_back({{"id", item.id},
                             {"question", item.question},
                             {"options", item.options},
                             {"gold", or_null(item.gold)},
                             {"unknown", or_null(item.unknown)},
                             {"stereotyped", or_null(item.stereotyped)},
                             {"scores", comparison.reference_scores[i]}});
  }
  json["columns"] = Json::array();
  for (const CompareColumn& column : comparison.columns)
    json["columns"].push_back(column_json(comparison, column));
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tramontane
