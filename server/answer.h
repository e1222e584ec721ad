// Answer: the choices of one request, n for each prompt. One HTTP thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "server/choice_assembler.h"
#include "server/openai_response.h"

namespace tramontane {

class Answer {
 public:
  Answer(const Tokenizer& tokenizer, const ParsedRequest& parsed,
         std::span<const std::vector<int32_t>> prompts);

  // Takes one event in; returns the index of its choice. Prompt log probabilities reach all choices of their
  // prompt.
  int32_t accept(size_t prompt, const TokenEvent& event);
  // Throws RequestError when the engine gave up on this choice: 408 (deadline, before any output), 429 (queue timeout), 503
  // (stopping), 500 (failed).
  void check(int32_t index) const;
  // Whether the choice's first chunk may go out: prompt log probabilities, which come first, are complete.
  bool ready(int32_t index) const;

  size_t n_choices() const { return choices_.size(); }
  ChoiceAssembler& choice(int32_t index) { return choices_[static_cast<size_t>(index)]; }
  std::vector<Choice> take_choices();

  int64_t prompt_tokens() const { return prompt_tokens_; }
  int64_t completion_tokens() const;
  // "stop", "length" or, for several choices, "stop,length".
  std::string finish_summary() const;

 private:
  const int32_t n_;
  int64_t prompt_tokens_ = 0;
  std::vector<ChoiceAssembler> choices_;
  std::vector<bool> began_;  // the choice had a token or its end
};

}  // namespace tramontane
