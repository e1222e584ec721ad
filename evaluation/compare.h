// compare: one reference and several candidates asked the same questions, one model in memory at a time.
// Main's thread.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "evaluation/choice_drift.h"
#include "evaluation/prompt_drift.h"
#include "evaluation/questions.h"
#include "tokenizer/chat_template.h"

namespace tramontane {

struct CompareInput {
  std::filesystem::path reference;
  std::vector<std::filesystem::path> candidates;
  std::vector<Prompt> prompts;    // either these
  std::vector<ChoiceItem> items;  // or these
  int32_t max_tokens = 48;        // of an answer
  bool noise_floor = true;        // a first column with the reference in F32 arithmetic
};

struct ModelFacts {
  std::string name;     // the path's last component, and folders before it where two would be the same
  std::string format;   // "GGUF Q4_1"
  uint64_t bytes = 0;   // of weights on disk
  std::string backend;  // what computed: "cpu (avx512bf16, 2 threads)"
};

// One candidate beside the reference.
struct CompareColumn {
  ModelFacts model;
  bool noise_floor = false;
  std::vector<PromptDrift> prompts;
  DriftSummary drift;
  ChoiceScores scores;
  ChoiceSummary choices;
};

struct Comparison {
  ModelFacts reference;
  int32_t vocab_size = 0, max_tokens = 0;
  std::vector<ReferenceAnswer> answers;
  std::vector<ChoiceItem> items;
  ChoiceScores reference_scores;
  std::vector<CompareColumn> columns;  // the noise floor first, then the candidates in their order

  const CompareColumn* noise() const {
    return !columns.empty() && columns.front().noise_floor ? &columns.front() : nullptr;
  }
};

// Changes that the noise floor does not explain: the reference was surer of its choice than rounding moves
// it. Answers: its margin at the first divergence is above every margin at which the noise floor's likeliest
// token differs. Flips: its margin is above the noise floor's largest margin change. Nothing without a noise
// floor.
std::optional<size_t> changed_beyond_noise(const Comparison& comparison, const CompareColumn& column);
std::optional<size_t> flips_beyond_noise(const Comparison& comparison, const CompareColumn& column);

// Opens a backend of BF16 or F32 arithmetic.
using MakeBackend = std::function<std::unique_ptr<Backend>(bool f32)>;

// Throws std::runtime_error with one line: vocabularies of different sizes (both named), a tokenizer larger
// than they, prompts too long for a model, all before anything is computed; models that do not load.
Comparison compare(const CompareInput& input, const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                   const MakeBackend& make_backend, const CompareProgress& progress);

}  // namespace tramontane
