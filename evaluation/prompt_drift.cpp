#include "evaluation/prompt_drift.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/backend/check.h"
#include "evaluation/text_overlap.h"

namespace tramontane {
namespace {

std::string spell(const Tokenizer& tokenizer, int32_t id) {
  if (id >= tokenizer.vocab_size()) return "<id " + std::to_string(id) + ">";  // a padded vocabulary
  return tokenizer.is_control(id) ? tokenizer.piece(id) : tokenizer.token_bytes(id);
}

std::string decode(const Tokenizer& tokenizer, std::vector<int32_t> ids) {
  std::erase_if(ids, [&](int32_t id) { return id >= tokenizer.vocab_size(); });
  return tokenizer.decode(ids);
}

}  // namespace

DriftSummary summarize(const std::vector<PromptDrift>& prompts) {
  DriftSummary s;
  std::vector<double> kl, places, margins;
  double agreed = 0, reference_logprob = 0, candidate_logprob = 0;
  for (const PromptDrift& prompt : prompts) {
    for (const PositionDrift& p : prompt.positions) {
      kl.push_back(p.kl);
      s.kl_mean += p.kl;
      s.kl_max = std::max(s.kl_max, p.kl);
      agreed += p.agree;
      reference_logprob += p.reference_logprob;
      candidate_logprob += p.candidate_logprob;
    }
    if (prompt.first_divergence) {
      places.push_back(static_cast<double>(*prompt.first_divergence));
      margins.push_back(prompt.positions[*prompt.first_divergence].reference_margin);
    }
    s.rouge_l += prompt.rouge_l;
    s.bleu += prompt.bleu;
    s.length_ratio += prompt.length_ratio;
  }
  s.prompts = prompts.size();
  s.positions = kl.size();
  s.changed = places.size();
  if (s.positions == 0) return s;
  const auto positions = static_cast<double>(s.positions), answers = static_cast<double>(s.prompts);
  s.kl_mean /= positions;
  s.kl_p95 = percentile(kl, 0.95);
  s.top1_agreement = agreed / positions;
  s.reference_perplexity = std::exp(-reference_logprob / positions);
  s.candidate_perplexity = std::exp(-candidate_logprob / positions);
  s.perplexity_shift = s.candidate_perplexity / s.reference_perplexity - 1;
  s.median_first_divergence = percentile(places, 0.5);
  s.median_margin = percentile(margins, 0.5);
  s.max_margin = percentile(margins, 1);
  s.rouge_l /= answers;
  s.bleu /= answers;
  s.length_ratio /= answers;
  return s;
}

PromptStudy::PromptStudy(const Tokenizer& tokenizer, std::vector<Question> questions, int32_t max_tokens)
    : tokenizer_(tokenizer), questions_(std::move(questions)), max_tokens_(max_tokens) {}

int32_t PromptStudy::longest() const {
  size_t longest = 0;
  for (const Question& question : questions_) longest = std::max(longest, question.ids.size());
  return static_cast<int32_t>(longest) + max_tokens_;
}

void PromptStudy::run_reference(ModelRunner& model, const CompareProgress& progress) {
  std::vector<GreedyTask> greedy;
  for (const Question& question : questions_) greedy.push_back({question.ids, max_tokens_});
  const auto answers =
      model.continue_greedily(greedy, [&](size_t done) { progress("answering", done, questions_.size()); });
  for (size_t i = 0; i < questions_.size(); ++i) {
    const std::vector<int32_t>& answer = answers[i];
    answers_.push_back({questions_[i].text, decode(tokenizer_, answer), answer});
    ScoringTask task{questions_[i].ids, static_cast<int32_t>(questions_[i].ids.size()) - 1};
    task.ids.insert(task.ids.end(), answer.begin(), answer.end() - 1);  // the last token predicts nothing
    first_stored_.push_back(i == 0 ? 0 : first_stored_.back() + answers[i - 1].size());
    tasks_.push_back(std::move(task));
  }
  store_ = std::make_unique<LogitStore>(model.vocab_size());
  model.score(
      tasks_, [&](size_t, int32_t, std::span<const float> row) { store_->append(row); },
      [&](size_t done) { progress("scoring", done, tasks_.size()); });
}

std::vector<PromptDrift> PromptStudy::compare_positions(ModelRunner& model, const CompareProgress& progress) {
  std::vector<PromptDrift> drifts(tasks_.size());
  model.score(
      tasks_,
      [&](size_t text, int32_t, std::span<const float> row) {
        PromptDrift& drift = drifts[text];
        const size_t position = drift.positions.size();
        const int32_t token = answers_[text].ids[position];
        const PositionDrift p = compare_position(store_->read(first_stored_[text] + position), row, token);
        if (!p.agree && !drift.first_divergence) {
          drift.first_divergence = position;
          drift.reference_token = spell(tokenizer_, token);
          drift.candidate_token = spell(tokenizer_, p.candidate_token);
        }
        drift.positions.push_back(p);
      },
      [&](size_t done) { progress("scoring", done, tasks_.size()); });
  return drifts;
}

// A candidate's greedy answer is the reference's up to the first divergence: only the rest is computed.
void PromptStudy::add_own_answers(ModelRunner& model, std::vector<PromptDrift>& drifts,
                                  const CompareProgress& progress) {
  std::vector<GreedyTask> greedy;
  std::vector<size_t> texts;
  std::vector<std::vector<int32_t>> answers;
  for (size_t i = 0; i < drifts.size(); ++i) {
    answers.push_back(answers_[i].ids);
    if (!drifts[i].first_divergence) continue;
    const size_t kept = *drifts[i].first_divergence;
    answers[i].resize(kept);
    GreedyTask task{questions_[i].ids, max_tokens_ - static_cast<int32_t>(kept)};
    task.ids.insert(task.ids.end(), answers[i].begin(), answers[i].end());
    greedy.push_back(std::move(task));
    texts.push_back(i);
  }
  const auto rest =
      model.continue_greedily(greedy, [&](size_t done) { progress("answering", done, greedy.size()); });
  for (size_t i = 0; i < texts.size(); ++i) {
    auto& answer = answers[texts[i]];
    CHECK_EQ(rest[i].front(), drifts[texts[i]].positions[answer.size()].candidate_token);
    answer.insert(answer.end(), rest[i].begin(), rest[i].end());
  }
  for (size_t i = 0; i < drifts.size(); ++i) {
    PromptDrift& drift = drifts[i];
    drift.answer = decode(tokenizer_, answers[i]);
    drift.rouge_l = rouge_l_f1(drift.answer, answers_[i].answer);
    const BleuScore bleu = sentence_bleu(drift.answer, answers_[i].answer);
    drift.bleu = bleu.score;
    drift.length_ratio = bleu.length_ratio;
  }
}

std::vector<PromptDrift> PromptStudy::run_candidate(ModelRunner& model, const CompareProgress& progress) {
  std::vector<PromptDrift> drifts = compare_positions(model, progress);
  add_own_answers(model, drifts, progress);
  return drifts;
}

}  // namespace tramontane
