#include "engine/request_checks.h"

#include <string>

namespace tramontane {
namespace {

constexpr int32_t kMaxN = 128;           // sequences of one request; beyond what any client sends
constexpr int32_t kMaxTopLogprobs = 20;  // OpenAI's

[[noreturn]] void refuse(const char* param, const std::string& message, const char* code = "invalid_value") {
  throw RequestError(400, "invalid_request_error", param, message, code);
}

std::string number(float value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
  return text;
}
std::string number(int64_t value) {
  return std::to_string(value);
}

// Written so that a NaN is outside every range.
template <typename T>
void in_range(const char* param, T value, T least, T most) {
  if (value >= least && value <= most) return;
  refuse(param, std::string("Invalid '") + param + "': expected a value from " + number(least) + " to " +
                    number(most) + ", got " + number(value) + ".");
}

void id_in_range(const char* param, int32_t id, int32_t vocab_size) {
  in_range<int64_t>(param, id, 0, vocab_size - 1);
}

void check_sampling(const SamplingParams& s, int32_t vocab_size) {
  in_range("temperature", s.temperature, 0.0f, 100.0f);
  if (!(s.top_p > 0.0f && s.top_p <= 1.0f)) {
    refuse("top_p", "Invalid 'top_p': expected a value above 0 and up to 1, got " + number(s.top_p) + ".");
  }
  in_range<int64_t>("top_k", s.top_k, 0, INT32_MAX);
  in_range("min_p", s.min_p, 0.0f, 1.0f);
  in_range("repetition_penalty", s.repetition_penalty, 0.01f, 100.0f);
  in_range("presence_penalty", s.presence_penalty, -2.0f, 2.0f);
  in_range("frequency_penalty", s.frequency_penalty, -2.0f, 2.0f);
  if (s.logit_bias.size() > kMaxLogitBias) {
    refuse("logit_bias", "Invalid 'logit_bias': expected at most " + std::to_string(kMaxLogitBias) +
                             " entries, got " + std::to_string(s.logit_bias.size()) + ".");
  }
  for (const auto& [id, bias] : s.logit_bias) {
    id_in_range("logit_bias", id, vocab_size);
    in_range("logit_bias", bias, -100.0f, 100.0f);
  }
  in_range<int64_t>("logprobs", s.logprobs, -1, kMaxTopLogprobs);
  in_range<int64_t>("prompt_logprobs", s.prompt_logprobs, -1, kMaxTopLogprobs);
  in_range<int64_t>("max_tokens", s.max_tokens, s.prompt_logprobs >= 0 ? 0 : 1, INT32_MAX);
  in_range<int64_t>("min_tokens", s.min_tokens, 0, s.max_tokens);
  if (s.stop_token_ids.size() > kMaxStopIds) {
    refuse("stop_token_ids", "Invalid 'stop_token_ids': expected at most " + std::to_string(kMaxStopIds) +
                                 " ids, got " + std::to_string(s.stop_token_ids.size()) + ".");
  }
  for (const int32_t id : s.stop_token_ids) id_in_range("stop_token_ids", id, vocab_size);
}

// OpenAI's wording, so that clients that look for it find it.
void check_length(const GenerateRequest& request, int32_t max_model_len) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const int64_t answer = request.sampling.max_tokens;
  if (prompt + answer <= max_model_len) return;
  refuse("prompt",
         "This model's maximum context length is " + std::to_string(max_model_len) +
             " tokens. However, you requested " + std::to_string(prompt + answer) + " tokens (" +
             std::to_string(prompt) + " in the prompt, " + std::to_string(answer) +
             " in the completion). Please reduce the length of the prompt or completion.",
         "context_length_exceeded");
}

}  // namespace

void check_request(const GenerateRequest& request, const RequestLimits& limits) {
  if (request.prompt.empty()) refuse("prompt", "Invalid 'prompt': expected at least one token, got none.");
  check_sampling(request.sampling, limits.vocab_size);
  in_range<int64_t>("n", request.n, 1, kMaxN);
  check_length(request, limits.max_model_len);  // before the ids: a hopeless prompt is not walked
  for (const int32_t id : request.prompt) id_in_range("prompt", id, limits.vocab_size);
}

}  // namespace tramontane
