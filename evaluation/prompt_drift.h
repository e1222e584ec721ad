// Drift on prompts: the reference's greedy answers, what a candidate makes of them teacher-forced, and the
// candidate's own answers beside them. One thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "evaluation/divergence.h"
#include "evaluation/logit_store.h"
#include "evaluation/model_runner.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

// What is being done and how far it is.
using CompareProgress = std::function<void(const std::string& what, size_t done, size_t total)>;

// A prompt's answer by the reference.
struct ReferenceAnswer {
  std::string prompt, answer;
  std::vector<int32_t> ids;  // of the answer, the end of sequence included
};

// A prompt seen by a candidate.
struct PromptDrift {
  std::vector<PositionDrift> positions;            // one a token of the reference's answer
  std::optional<size_t> first_divergence;          // the first of them where the likeliest token differs
  std::string reference_token, candidate_token;    // what each says there
  std::string answer;                              // the candidate's own greedy answer
  double rouge_l = 0, bleu = 0, length_ratio = 0;  // of it against the reference's: text_overlap.h
};

// Over all prompts of one candidate.
struct DriftSummary {
  size_t positions = 0;
  double kl_mean = 0, kl_p95 = 0, kl_max = 0;
  double top1_agreement = 0;                                  // share of positions
  double reference_perplexity = 0, candidate_perplexity = 0;  // of the reference's answers
  double perplexity_shift = 0;                                // candidate / reference - 1
  size_t prompts = 0, changed = 0;     // changed: some position's likeliest token differs
  double median_first_divergence = 0;  // tokens before it, over the changed answers; 0 when none changed
  double median_margin = 0, max_margin = 0;        // the reference's, there (log of the ratio)
  double rouge_l = 0, bleu = 0, length_ratio = 0;  // means over prompts
};

DriftSummary summarize(const std::vector<PromptDrift>& prompts);

class PromptStudy {
 public:
  struct Question {
    std::string text;
    std::vector<int32_t> ids;
  };
  // The tokenizer must outlive the study.
  PromptStudy(const Tokenizer& tokenizer, std::vector<Question> questions, int32_t max_tokens);

  // The most tokens that a text will have.
  int32_t longest() const;
  void run_reference(ModelRunner& model, const CompareProgress& progress);
  // After run_reference. The candidate's vocabulary is as large as the reference's.
  std::vector<PromptDrift> run_candidate(ModelRunner& model, const CompareProgress& progress);
  const std::vector<ReferenceAnswer>& answers() const { return answers_; }

 private:
  std::vector<PromptDrift> compare_positions(ModelRunner& model, const CompareProgress& progress);
  void add_own_answers(ModelRunner& model, std::vector<PromptDrift>& drifts, const CompareProgress& progress);

  const Tokenizer& tokenizer_;
  std::vector<Question> questions_;
  int32_t max_tokens_;
  std::vector<ReferenceAnswer> answers_;
  std::vector<ScoringTask> tasks_;
  std::vector<size_t> first_stored_;  // the store's row of each answer's first position
  std::unique_ptr<LogitStore> store_;
};

}  // namespace tramontane
