#include "server/request_fields.h"

#include <charconv>
#include <cmath>
#include <limits>

namespace tramontane {
namespace {

using nlohmann::json;
using Limits = ParameterLimits;
using Parsed = ParsedRequest;

constexpr unsigned kChat = static_cast<unsigned>(Endpoint::chat);
constexpr unsigned kCompletions = static_cast<unsigned>(Endpoint::completions);
constexpr unsigned kTokenize = static_cast<unsigned>(Endpoint::tokenize);
constexpr unsigned kApplyTemplate = static_cast<unsigned>(Endpoint::apply_template);
constexpr unsigned kDetokenize = static_cast<unsigned>(Endpoint::detokenize);
constexpr unsigned kGenerate = kChat | kCompletions | kApplyTemplate;
constexpr unsigned kMessages = kChat | kApplyTemplate | kTokenize;
constexpr unsigned kChatOnly = kChat | kApplyTemplate;

constexpr double kInt32Max = std::numeric_limits<int32_t>::max();
constexpr double kInt32Min = std::numeric_limits<int32_t>::min();
constexpr double kTwoTo63 =
    0x1p63;  // not itself in range, but no double is nearer to 2^63 - 1: see apply_seed
constexpr double kLongestStop = 1024;  // bytes; what is held back of a stream is bounded by it
constexpr double kLongestTimeout = 7 * 86400;

RequestError unsupported(const std::string& param, const std::string& message) {
  return RequestError(400, "invalid_request_error", param, message, "unsupported_parameter");
}

float as_float(const json& value) {
  return static_cast<float>(value.get<double>());
}

// Read elsewhere (from the raw body, or before the table), or without effect by definition.
void nothing(const json&, const Limits&, Parsed&) {}

void apply_stop(const json& value, const Limits& limits, Parsed& parsed) {
  const json list = value.is_array() ? value : json::array({value});
  if (list.size() > static_cast<size_t>(limits.max_stop)) {
    throw wrong_value("stop", "at most " + std::to_string(limits.max_stop) +
                                  " stop strings are allowed, but got " + std::to_string(list.size()) + ".");
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string param = value.is_array() ? "stop[" + std::to_string(i) + "]" : "stop";
    if (!list[i].is_string())
      throw wrong_type(param, value.is_array() ? "a string" : "a string or an array of strings", list[i]);
    std::string stop = list[i].get<std::string>();
    if (stop.empty()) throw wrong_value(param, "a stop string must not be empty.");
    if (static_cast<double>(stop.size()) > kLongestStop)
      throw wrong_value(param, "a stop string may have at most 1024 bytes.");
    parsed.output.stop.push_back(std::move(stop));
  }
}

void apply_stop_token_ids(const json& value, const Limits& limits, Parsed& parsed) {
  constexpr size_t kMost = 128;
  if (value.size() > kMost) throw wrong_value("stop_token_ids", "at most 128 ids are allowed.");
  parsed.sampling.stop_token_ids = parse_ids(value, limits.vocab_size, "stop_token_ids");
}

void apply_logit_bias(const json& value, const Limits& limits, Parsed& parsed) {
  if (value.size() > static_cast<size_t>(limits.max_logit_bias)) {
    throw wrong_value("logit_bias",
                      "at most " + std::to_string(limits.max_logit_bias) + " entries are allowed.");
  }
  for (const auto& [key, bias] : value.items()) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (error != std::errc() || end != key.data() + key.size() || token < 0 || token >= limits.vocab_size) {
      throw wrong_value("logit_bias",
                        "keys must be token ids below " + std::to_string(limits.vocab_size) + ".");
    }
    const std::string param = "logit_bias." + key;
    if (!bias.is_number()) throw wrong_type(param, "a number", bias);
    const double number = bias.get<double>();
    if (!(number >= -100 && number <= 100))
      throw wrong_value(param, "expected a value between -100 and 100.");
    parsed.sampling.logit_bias.emplace_back(token, static_cast<float>(number));
  }
}

void apply_stream_options(const json& value, const Limits&, Parsed& parsed) {
  for (const auto& [key, option] : value.items()) {
    if (option.is_null()) continue;
    if (key == "include_usage") {
      if (!option.is_boolean()) throw wrong_type("stream_options.include_usage", "a boolean", option);
      parsed.output.include_usage = option.get<bool>();
    } else {
      parsed.ignored.push_back("stream_options." + key);
    }
  }
}

void apply_max_tokens(const json& value, const Limits&, Parsed& parsed) {
  parsed.max_tokens = value.get<int32_t>();
}

void apply_temperature(const json& value, const Limits&, Parsed& parsed) {
  parsed.sampling.temperature = as_float(value);
}

// OpenAI accepts 0, which leaves the likeliest token alone; so does the smallest positive number.
void apply_top_p(const json& value, const Limits&, Parsed& parsed) {
  parsed.sampling.top_p = std::max(as_float(value), std::numeric_limits<float>::min());
}

void apply_completion_logprobs(const json& value, const Limits&, Parsed& parsed) {
  parsed.output.logprobs = true;
  parsed.output.top_logprobs = value.get<int32_t>();
}

void apply_seed(const json& value, const Limits&, Parsed& parsed) {
  const bool fits = value.is_number_integer() &&
                    value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!fits) throw wrong_value("seed", "expected a value below 2^63, but got " + value.dump() + ".");
  parsed.seed = value.get<uint64_t>();
}

void apply_best_of(const json& value, const Limits&, Parsed& parsed) {
  if (value.get<int32_t>() != 1) parsed.ignored.push_back("best_of");
}

void apply_tool_choice(const json& value, const Limits&, Parsed&) {
  if (value.is_string() && (value == "none" || value == "auto")) return;
  if (value.is_string() && value != "required")
    throw wrong_value("tool_choice", "expected 'none', 'auto', 'required' or a named function.");
  if (!value.is_string() && !value.is_object())
    throw wrong_type("tool_choice", "a string or an object", value);
  throw unsupported("tool_choice", "tool calls are not parsed yet; send tool_choice none");
}

void apply_response_format(const json& value, const Limits&, Parsed&) {
  const auto type = value.find("type");
  if (type == value.end() || !type->is_string())
    throw wrong_value("response_format.type", "expected 'text', 'json_object' or 'json_schema'.");
  if (*type == "text") return;
  if (*type != "json_object" && *type != "json_schema")
    throw wrong_value("response_format.type", "expected 'text', 'json_object' or 'json_schema'.");
  throw unsupported(
      "response_format",
      "structured output is not supported yet; send response_format {\"type\": \"text\"} or leave it out");
}

void refuse_structured_outputs(const json&, const Limits&, Parsed&) {
  throw unsupported("structured_outputs",
                    "structured output is not supported yet; leave structured_outputs out");
}
void refuse_functions(const json&, const Limits&, Parsed&) {
  throw unsupported("functions", "functions are not supported; send tools with tool_choice none");
}
void refuse_function_call(const json& value, const Limits&, Parsed&) {
  if (value != "none")
    throw unsupported("function_call", "function calls are not supported; leave function_call out");
}

using enum FieldType;
constexpr FieldSupport kSupported = FieldSupport::supported;
constexpr FieldSupport kIgnored = FieldSupport::ignored;

// clang-format off
constexpr RequestField kFields[] = {
    // Input.
    {"model", kGenerate | kTokenize | kDetokenize, string, 0, 1024, kSupported, "The served model's id.", [](const json& v, const Limits&, Parsed& p) { p.model = v.get<std::string>(); }},
    {"messages", kMessages, array, 0, 0, kSupported, "The conversation so far.", nothing},
    {"tools", kMessages, array, 0, 0, kSupported, "Functions that the model is told of.", nothing},
    {"continue_final_message", kMessages, boolean, 0, 0, kSupported, "The answer continues the last message, which is the assistant's.", [](const json& v, const Limits&, Parsed& p) { p.continues_message = v.get<bool>(); }},
    {"prompt", kCompletions | kTokenize, any, 0, 0, kSupported, "Text, texts, token ids or lists of token ids.", [](const json& v, const Limits&, Parsed& p) { p.prompt = v; }},
    {"echo", kCompletions, boolean, 0, 0, kSupported, "The prompt is returned before the answer.", [](const json& v, const Limits&, Parsed& p) { p.output.echo = v.get<bool>(); }},
    {"add_special_tokens", kTokenize, boolean, 0, 0, kSupported, "Whether a prompt begins with BOS.", [](const json& v, const Limits&, Parsed& p) { p.add_special_tokens = v.get<bool>(); }},
    {"return_token_strs", kTokenize, boolean, 0, 0, kSupported, "Adds the pieces as the vocabulary spells them.", [](const json& v, const Limits&, Parsed& p) { p.return_pieces = v.get<bool>(); }},
    {"tokens", kDetokenize, array, 0, 0, kSupported, "Token ids.", nothing},
    {"add_generation_prompt", kMessages, boolean, 0, 0, kIgnored, "", nothing},
    // Length and end.
    {"max_tokens", kGenerate, integer, 0, kInt32Max, kSupported, "Most tokens of an answer.", apply_max_tokens},
    {"max_completion_tokens", kChatOnly, integer, 1, kInt32Max, kSupported, "Most tokens of an answer.", apply_max_tokens},
    {"min_tokens", kGenerate, integer, 0, kInt32Max, kSupported, "Fewest tokens of an answer.", [](const json& v, const Limits&, Parsed& p) { p.sampling.min_tokens = v.get<int32_t>(); }},
    {"stop", kGenerate, any, 0, 0, kSupported, "Strings that end the answer; not part of it.", apply_stop},
    {"stop_token_ids", kGenerate, array, 0, 0, kSupported, "Token ids that end the answer; not part of it.", apply_stop_token_ids},
    {"ignore_eos", kGenerate, boolean, 0, 0, kSupported, "Goes on past the model's end-of-sequence token.", [](const json& v, const Limits&, Parsed& p) { p.sampling.ignore_eos = v.get<bool>(); }},
    {"timeout", kGenerate, number, 0, kLongestTimeout, kSupported, "Seconds until the request is given up; 0: none.", [](const json& v, const Limits&, Parsed& p) { p.timeout = v.get<double>(); }},
    // Sampling.
    {"temperature", kGenerate, number, 0, 2, kSupported, "0: the likeliest token.", apply_temperature},
    {"top_p", kGenerate, number, 0, 1, kSupported, "Nucleus sampling.", apply_top_p},
    {"top_k", kGenerate, integer, 0, kInt32Max, kSupported, "Only the k likeliest tokens; 0: all.", [](const json& v, const Limits&, Parsed& p) { p.sampling.top_k = v.get<int32_t>(); }},
    {"min_p", kGenerate, number, 0, 1, kSupported, "Only tokens at least so likely, relative to the likeliest.", [](const json& v, const Limits&, Parsed& p) { p.sampling.min_p = as_float(v); }},
    {"repetition_penalty", kGenerate, number, 0.01, 100, kSupported, "Divides the logits of tokens seen; 1: off.", [](const json& v, const Limits&, Parsed& p) { p.sampling.repetition_penalty = as_float(v); }},
    {"presence_penalty", kGenerate, number, -2, 2, kSupported, "Off the logits of tokens already answered.", [](const json& v, const Limits&, Parsed& p) { p.sampling.presence_penalty = as_float(v); }},
    {"frequency_penalty", kGenerate, number, -2, 2, kSupported, "Off the logits, for each time a token was answered.", [](const json& v, const Limits&, Parsed& p) { p.sampling.frequency_penalty = as_float(v); }},
    {"logit_bias", kGenerate, object, 0, 0, kSupported, "Token id to what is added to its logit.", apply_logit_bias},
    {"seed", kGenerate, integer, 0, kTwoTo63, kSupported, "The same seed gives the same answer.", apply_seed},
    {"n", kGenerate, integer, 1, kInt32Max, kSupported, "Answers to each prompt.", [](const json& v, const Limits& limits, Parsed& p) {
       if (v.get<int64_t>() > limits.max_n) throw wrong_value("n", "expected a value <= " + std::to_string(limits.max_n) + ", but got " + v.dump() + ".");
       p.n = v.get<int32_t>(); }},
    {"best_of", kCompletions, integer, 1, 128, kSupported, "Only 1 has an effect.", apply_best_of},
    // Output.
    {"stream", kGenerate, boolean, 0, 0, kSupported, "Server-sent events.", [](const json& v, const Limits&, Parsed& p) { p.output.stream = v.get<bool>(); }},
    {"stream_options", kGenerate, object, 0, 0, kSupported, "include_usage: a last chunk with the token counts.", apply_stream_options},
    {"logprobs", kChatOnly, boolean, 0, 0, kSupported, "Log probabilities of the answer's tokens.", [](const json& v, const Limits&, Parsed& p) { p.output.logprobs = v.get<bool>(); }},
    {"top_logprobs", kChatOnly, integer, 0, 20, kSupported, "So many of the likeliest tokens at each place.", [](const json& v, const Limits&, Parsed& p) { p.output.top_logprobs = v.get<int32_t>(); }},
    {"logprobs", kCompletions, integer, 0, 20, kSupported, "Log probabilities of the tokens and of so many of the likeliest.", apply_completion_logprobs},
    {"return_token_ids", kGenerate, boolean, 0, 0, kSupported, "Adds prompt_token_ids and token_ids.", [](const json& v, const Limits&, Parsed& p) { p.output.return_token_ids = v.get<bool>(); }},
    // Service.
    {"priority", kGenerate, integer, kInt32Min, kInt32Max, kSupported, "Lower runs first.", [](const json& v, const Limits&, Parsed& p) { p.priority = v.get<int32_t>(); }},
    {"cache_salt", kGenerate, string, 1, 1024, kSupported, "Prefixes are shared only between equal salts.", [](const json& v, const Limits&, Parsed& p) { p.cache_salt = v.get<std::string>(); }},
    {"user", kGenerate, string, 0, 1024, kSupported, "The caller's own name for its user; not used.", nothing},
    // Tools out and structured output follow.
    {"tool_choice", kMessages, any, 0, 0, kSupported, "none; auto where there are no tools.", apply_tool_choice},
    {"response_format", kGenerate, object, 0, 0, kSupported, "Only {\"type\": \"text\"}.", apply_response_format},
    {"structured_outputs", kGenerate, any, 0, 0, kSupported, "Refused.", refuse_structured_outputs},
    {"functions", kChatOnly, any, 0, 0, kSupported, "Refused.", refuse_functions},
    {"function_call", kChatOnly, any, 0, 0, kSupported, "Refused.", refuse_function_call},
    // OpenAI's own that have no effect here.
    {"parallel_tool_calls", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"suffix", kCompletions, any, 0, 0, kIgnored, "", nothing},
    {"audio", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"metadata", kGenerate, any, 0, 0, kIgnored, "", nothing},
    {"modalities", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"prediction", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"prompt_cache_key", kGenerate, any, 0, 0, kIgnored, "", nothing},
    {"reasoning_effort", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"safety_identifier", kGenerate, any, 0, 0, kIgnored, "", nothing},
    {"service_tier", kGenerate, any, 0, 0, kIgnored, "", nothing},
    {"store", kGenerate, any, 0, 0, kIgnored, "", nothing},
    {"verbosity", kChatOnly, any, 0, 0, kIgnored, "", nothing},
    {"web_search_options", kChatOnly, any, 0, 0, kIgnored, "", nothing},
};
// clang-format on

std::string_view describe(FieldType type) {
  switch (type) {
    case boolean:
      return "a boolean";
    case integer:
      return "an integer";
    case number:
      return "a number";
    case string:
      return "a string";
    case array:
      return "an array";
    case object:
      return "an object";
    case any:
      break;
  }
  return "a value";
}

std::string_view describe(const json& value) {
  switch (value.type()) {
    case json::value_t::null:
      return "null";
    case json::value_t::boolean:
      return "a boolean";
    case json::value_t::number_integer:
    case json::value_t::number_unsigned:
      return "an integer";
    case json::value_t::number_float:
      return "a decimal number";
    case json::value_t::string:
      return "a string";
    case json::value_t::array:
      return "an array";
    case json::value_t::object:
      return "an object";
    default:
      return "something else";
  }
}

bool has_type(const json& value, FieldType type) {
  switch (type) {
    case boolean:
      return value.is_boolean();
    case integer:
      return value.is_number_integer();
    case number:
      return value.is_number();
    case string:
      return value.is_string();
    case array:
      return value.is_array();
    case object:
      return value.is_object();
    case any:
      return true;
  }
  return false;
}

std::string spelled(double bound) {
  return json(bound == std::floor(bound) ? json(static_cast<int64_t>(bound)) : json(bound)).dump();
}

}  // namespace

std::span<const RequestField> request_fields() {
  return kFields;
}

const RequestField* find_field(std::string_view name, Endpoint endpoint) {
  for (const RequestField& field : kFields) {
    if (field.name == name && (field.endpoints & static_cast<unsigned>(endpoint)) != 0) return &field;
  }
  return nullptr;
}

RequestError wrong_type(const std::string& param, const std::string& expected, const json& value) {
  return RequestError(400, "invalid_request_error", param,
                      "Invalid type for '" + param + "': expected " + expected + ", but got " +
                          std::string(describe(value)) + " instead.",
                      "invalid_type");
}

RequestError wrong_value(const std::string& param, const std::string& why) {
  return RequestError(400, "invalid_request_error", param, "Invalid value for '" + param + "': " + why,
                      "invalid_value");
}

void check_field(const RequestField& field, const json& value) {
  const std::string name(field.name);
  // An integer past 64 bits arrives as a float: it is out of range rather than of the wrong type.
  const bool huge =
      field.type == integer && value.is_number_float() && std::abs(value.get<double>()) >= 0x1p63;
  if (!huge && !has_type(value, field.type)) throw wrong_type(name, std::string(describe(field.type)), value);
  if (field.type == string) {
    const double bytes = static_cast<double>(value.get_ref<const std::string&>().size());
    if (bytes < field.min) throw wrong_value(name, "it must not be empty.");
    if (bytes > field.max) throw wrong_value(name, "it may have at most " + spelled(field.max) + " bytes.");
  }
  if (field.type != integer && field.type != number) return;
  const double number = value.get<double>();
  if (number < field.min || std::isnan(number))
    throw wrong_value(name, "expected a value >= " + spelled(field.min) + ", but got " + value.dump() + ".");
  if (number > field.max)
    throw wrong_value(name, "expected a value <= " + spelled(field.max) + ", but got " + value.dump() + ".");
}

}  // namespace tramontane
