#include "server/openai_request.h"

#include <algorithm>
#include <random>

#include "server/request_fields.h"

namespace tramontane {
namespace {

using nlohmann::json;

uint64_t fresh_seed() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq words{device(), device(), device(), device()};
    return std::mt19937_64(words);
  }();
  return generator() >> 1;  // below 2^63, so that a client can send it back
}

void apply_defaults(const GenerationDefaults& defaults, SamplingParams& sampling) {
  if (defaults.temperature) sampling.temperature = *defaults.temperature;
  if (defaults.top_p) sampling.top_p = *defaults.top_p;
  if (defaults.top_k) sampling.top_k = *defaults.top_k;
  if (defaults.repetition_penalty) sampling.repetition_penalty = *defaults.repetition_penalty;
}

bool given(const json& body, const char* name) {
  const auto found = body.find(name);
  return found != body.end() && !found->is_null();
}

// What no single field says.
void check_together(const json& body, ParsedRequest& parsed) {
  const bool chat = parsed.endpoint == Endpoint::chat;
  if (given(body, "max_tokens") && given(body, "max_completion_tokens")) {
    throw wrong_value("max_tokens", "max_tokens and max_completion_tokens cannot be sent together.");
  }
  if (parsed.max_tokens == 0 && !parsed.output.echo) {
    throw wrong_value("max_tokens",
                      chat ? "expected a value >= 1, but got 0." : "0 is only allowed together with echo.");
  }
  if (parsed.max_tokens && parsed.sampling.min_tokens > *parsed.max_tokens) {
    throw wrong_value("min_tokens",
                      "expected a value <= max_tokens (" + std::to_string(*parsed.max_tokens) + ").");
  }
  if (chat && given(body, "top_logprobs") && !parsed.output.logprobs) {
    throw wrong_value("top_logprobs", "it is only allowed when logprobs is true.");
  }
  if (given(body, "stream_options") && !parsed.output.stream) {
    throw wrong_value("stream_options", "it is only allowed when stream is true.");
  }
  if (chat && given(body, "tools") && !body.at("tools").empty() &&
      (!given(body, "tool_choice") || body.at("tool_choice") != "none")) {
    throw RequestError(400, "invalid_request_error", "tools",
                       "tool calls are not parsed yet; send tool_choice none", "unsupported_parameter");
  }
}

void require(const json& body, const char* name) {
  if (given(body, name)) return;
  throw RequestError(400, "invalid_request_error", name,
                     "Missing required parameter: '" + std::string(name) + "'.",
                     "missing_required_parameter");
}

void refuse_ignored(const std::vector<std::string>& ignored) {
  if (ignored.empty()) return;
  throw RequestError(400, "invalid_request_error", ignored.front(),
                     "Unsupported parameter: '" + ignored.front() + "'.", "unsupported_parameter");
}

std::vector<int32_t> encode_text(const std::string& text, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.encode(text);
  // An empty prompt still needs one token to start from.
  const bool bos = tokenizer.bos_id() >= 0 && (tokenizer.adds_bos() || ids.empty());
  if (bos) ids.insert(ids.begin(), tokenizer.bos_id());
  return ids;
}

int32_t room_for_answer(size_t prompt_tokens, Endpoint endpoint, const ParameterLimits& limits) {
  if (prompt_tokens < static_cast<size_t>(limits.max_model_len))
    return limits.max_model_len - static_cast<int32_t>(prompt_tokens);
  throw RequestError(400, "invalid_request_error", endpoint == Endpoint::completions ? "prompt" : "messages",
                     "This model's maximum context length is " + std::to_string(limits.max_model_len) +
                         " tokens. However, your prompt has " + std::to_string(prompt_tokens) +
                         " tokens, which leaves no room for an answer.",
                     "context_length_exceeded");
}

}  // namespace

ParameterLimits limits_of(const ServerConfig& config, const GenerationDefaults& defaults, int32_t vocab_size,
                          int32_t max_model_len) {
  ParameterLimits limits;
  limits.max_n = config.max_n;
  limits.max_stop = config.max_stop;
  limits.max_logit_bias = config.max_logit_bias;
  limits.max_prompts = std::max(1, config.max_queue);
  limits.vocab_size = vocab_size;
  limits.max_model_len = max_model_len;
  constexpr double kLongest = 365.0 * 86400;  // seconds; what a clock can add
  limits.request_timeout = std::min(config.request_timeout, kLongest);
  limits.strict = config.strict;
  limits.defaults = defaults;
  return limits;
}

ParsedRequest parse_request(const json& body, Endpoint endpoint, const ParameterLimits& limits) {
  ParsedRequest parsed;
  parsed.endpoint = endpoint;
  apply_defaults(limits.defaults, parsed.sampling);
  for (const auto& [name, value] : body.items()) {
    if (value.is_null()) continue;
    const RequestField* field = find_field(name, endpoint);
    if (field == nullptr || field->support == FieldSupport::ignored) {
      parsed.ignored.push_back(name);
      continue;
    }
    check_field(*field, value);
    field->apply(value, limits, parsed);
  }
  if (limits.strict) refuse_ignored(parsed.ignored);
  if (endpoint == Endpoint::completions) require(body, "prompt");
  if (endpoint == Endpoint::chat || endpoint == Endpoint::apply_template) require(body, "messages");
  check_together(body, parsed);
  if (parsed.output.logprobs) parsed.sampling.logprobs = parsed.output.top_logprobs;
  if (limits.request_timeout > 0 && (parsed.timeout == 0 || limits.request_timeout < parsed.timeout))
    parsed.timeout = limits.request_timeout;
  return parsed;
}

std::vector<int32_t> parse_ids(const json& ids, int32_t vocab_size, const std::string& param) {
  if (!ids.is_array()) throw wrong_type(param, "an array of token ids", ids);
  std::vector<int32_t> parsed;
  parsed.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string place = param + "[" + std::to_string(i) + "]";
    if (!ids[i].is_number_integer()) throw wrong_type(place, "a token id", ids[i]);
    const bool below =
        ids[i].is_number_unsigned() && ids[i].get<uint64_t>() < static_cast<uint64_t>(vocab_size);
    if (!below)
      throw wrong_value(
          place, "token ids are 0 to " + std::to_string(vocab_size - 1) + ", but got " + ids[i].dump() + ".");
    parsed.push_back(ids[i].get<int32_t>());
  }
  return parsed;
}

std::vector<std::vector<int32_t>> encode_prompts(const json& prompt, const Tokenizer& tokenizer,
                                                 const ParameterLimits& limits) {
  std::vector<std::vector<int32_t>> prompts;
  const auto add = [&](const json& one, const std::string& param) {
    prompts.push_back(one.is_string() ? encode_text(one.get<std::string>(), tokenizer)
                                      : parse_ids(one, limits.vocab_size, param));
    if (prompts.back().empty()) throw wrong_value(param, "it must not be empty.");
  };
  const bool list = prompt.is_array() && !prompt.empty() && !prompt.front().is_number();
  if (!list) {
    if (!prompt.is_string() && !prompt.is_array())
      throw wrong_type("prompt", "a string, an array of strings, or an array of token ids", prompt);
    add(prompt, "prompt");
    return prompts;
  }
  if (prompt.size() > static_cast<size_t>(limits.max_prompts)) {
    throw wrong_value(
        "prompt", "at most " + std::to_string(limits.max_prompts) + " prompts are allowed in one request.");
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string place = "prompt[" + std::to_string(i) + "]";
    if (prompt[i].type() != prompt.front().type()) {
      throw wrong_type(place, prompt.front().is_string() ? "a string" : "an array of token ids", prompt[i]);
    }
    add(prompt[i], place);
  }
  return prompts;
}

EncodedChat encode_chat(const ChatTemplate* chat_template, std::string_view raw_body) {
  if (chat_template == nullptr) {
    throw RequestError(
        400, "invalid_request_error", "messages",
        "This model has no chat template: use /v1/completions, or start the server with --chat-template.");
  }
  try {
    return chat_template->encode(raw_body, true);
  } catch (const ChatError& error) {
    throw RequestError(400, "invalid_request_error", error.param, error.what(), "invalid_value");
  }
}

std::vector<GenerateRequest> generate_requests(const ParsedRequest& parsed,
                                               std::vector<std::vector<int32_t>> prompts,
                                               const ParameterLimits& limits, const std::string& id,
                                               const std::string& key_salt) {
  std::vector<GenerateRequest> requests;
  const uint64_t seed = parsed.seed.value_or(fresh_seed());
  for (std::vector<int32_t>& prompt : prompts) {
    GenerateRequest request;
    request.id = id;
    request.sampling = parsed.sampling;
    request.sampling.seed = seed;
    const bool only_echo = parsed.max_tokens == 0;
    request.sampling.max_tokens = only_echo ? 0 : parsed.max_tokens.value_or(0);
    if (!parsed.max_tokens)
      request.sampling.max_tokens = room_for_answer(prompt.size(), parsed.endpoint, limits);
    if (request.sampling.min_tokens > request.sampling.max_tokens) {
      throw wrong_value("min_tokens",
                        "there is room for " + std::to_string(request.sampling.max_tokens) + " tokens only.");
    }
    if (parsed.output.echo && parsed.output.logprobs)
      request.sampling.prompt_logprobs = parsed.output.top_logprobs;
    if (only_echo) request.sampling.prompt_logprobs = std::max(0, request.sampling.prompt_logprobs);
    request.prompt = std::move(prompt);
    request.n = parsed.n;
    request.priority = parsed.priority;
    request.cache_salt = key_salt.empty() ? parsed.cache_salt : key_salt + parsed.cache_salt;
    if (parsed.timeout > 0) {
      request.deadline =
          std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                 std::chrono::duration<double>(parsed.timeout));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace tramontane
