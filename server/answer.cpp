#include "server/answer.h"

#include <algorithm>

namespace tramontane {
namespace {

const char* name_of(FinishReason finish) {
  switch (finish) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::deadline:
      return "deadline";
    case FinishReason::queue_timeout:
      return "queue_timeout";
    case FinishReason::error:
      return "error";
    case FinishReason::none:
      break;
  }
  return "none";
}

}  // namespace

Answer::Answer(const Tokenizer& tokenizer, const ParsedRequest& parsed,
               std::span<const std::vector<int32_t>> prompts)
    : n_(parsed.n) {
  const bool continues = parsed.endpoint == Endpoint::completions || parsed.continues_message;
  for (const std::vector<int32_t>& prompt : prompts) {
    prompt_tokens_ += static_cast<int64_t>(prompt.size());
    for (int32_t i = 0; i < n_; ++i) choices_.emplace_back(tokenizer, parsed.output, prompt, continues);
  }
  began_.resize(choices_.size());
}

int32_t Answer::accept(size_t prompt, const TokenEvent& event) {
  const int32_t first = static_cast<int32_t>(prompt) * n_;
  if (event.kind == TokenEvent::Kind::prompt_logprob) {
    for (int32_t i = 0; i < n_; ++i) choice(first + i).accept(event);
    return first;
  }
  choice(first + event.index).accept(event);
  began_[static_cast<size_t>(first + event.index)] = true;
  return first + event.index;
}

bool Answer::ready(int32_t index) const {
  return began_[static_cast<size_t>(index)];
}

void Answer::check(int32_t index) const {
  const FinishReason finish = choices_[static_cast<size_t>(index)].finish();
  if (finish == FinishReason::cancelled)
    throw RequestError(503, "server_error", "", "The server is shutting down.", "shutting_down");
  if (finish == FinishReason::error)
    throw RequestError(500, "server_error", "", "The engine failed.", "engine_failed");
  if (finish == FinishReason::queue_timeout) {
    RequestError error(429, "rate_limit_error", "",
                       "The request waited too long for its turn. Please retry later.",
                       "rate_limit_exceeded");
    error.retry_after_s = 1;
    throw error;
  }
  if (finish == FinishReason::deadline && completion_tokens() == 0) {
    throw RequestError(408, "timeout_error", "timeout", "The request's deadline passed before any output.",
                       "deadline_exceeded");
  }
}

int64_t Answer::completion_tokens() const {
  int64_t sum = 0;
  for (const ChoiceAssembler& choice : choices_) sum += choice.n_tokens();
  return sum;
}

std::vector<Choice> Answer::take_choices() {
  std::vector<Choice> taken;
  for (size_t i = 0; i < choices_.size(); ++i)
    taken.push_back({static_cast<int32_t>(i), choices_[i].take(), choices_[i].finish()});
  return taken;
}

std::string Answer::finish_summary() const {
  std::vector<std::string> names;
  for (const ChoiceAssembler& choice : choices_) {
    const std::string name = name_of(choice.finish());
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  std::string summary;
  for (const std::string& name : names) summary += (summary.empty() ? "" : ",") + name;
  return summary;
}

}  // namespace tramontane
