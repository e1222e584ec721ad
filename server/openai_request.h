// A client's JSON to what the engine and the answer need. Checks every type and range by the one table in
// request_fields.h. Pure; any thread. Throws RequestError 400 with `param`.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/model_config.h"
#include "config/server_config.h"
#include "engine/request.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

enum class Endpoint : uint8_t {
  chat = 1,
  completions = 2,
  tokenize = 4,
  apply_template = 8,
  detokenize = 16
};

// What requests are checked against.
struct ParameterLimits {
  int32_t max_n = 16, max_stop = 16, max_logit_bias = 1024, max_prompts = 1024;
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;   // tokens, prompt and answer
  double request_timeout = 0;  // seconds; 0: none
  bool strict = false;         // an ignored field is a 400
  GenerationDefaults defaults;
};
ParameterLimits limits_of(const ServerConfig& config, const GenerationDefaults& defaults, int32_t vocab_size,
                          int32_t max_model_len);

// What is done with the answer, as the client asked.
struct OutputOptions {
  bool stream = false, include_usage = false;
  bool echo = false;  // completions: the prompt is part of the text
  bool logprobs = false;
  int32_t top_logprobs = 0;  // 0..20
  bool return_token_ids = false;
  std::vector<std::string> stop;  // not empty, each not empty
};

struct ParsedRequest {
  Endpoint endpoint = Endpoint::chat;
  std::string model;  // empty: not said
  OutputOptions output;
  SamplingParams sampling;  // max_tokens and seed are set by generate_requests()
  std::optional<int32_t> max_tokens;
  std::optional<uint64_t> seed;
  int32_t n = 1, priority = 0;
  std::string cache_salt;
  double timeout = 0;                // seconds; 0: none
  nlohmann::json prompt;             // completions, tokenize
  bool continues_message = false;    // the answer goes on from the last message
  bool add_special_tokens = true;    // tokenize
  bool return_pieces = false;        // tokenize
  std::vector<std::string> ignored;  // fields that were sent and have no effect, for X-Ignored-Params
};

// `body` as parse_json_body gives it.
ParsedRequest parse_request(const nlohmann::json& body, Endpoint endpoint, const ParameterLimits& limits);

// A completions prompt (string, strings, ids, lists of ids) as lists of ids. Strings begin with BOS where the
// tokenizer says so.
std::vector<std::vector<int32_t>> encode_prompts(const nlohmann::json& prompt, const Tokenizer& tokenizer,
                                                 const ParameterLimits& limits);
// Ids in [0, vocab_size). `param` names the place in errors.
std::vector<int32_t> parse_ids(const nlohmann::json& ids, int32_t vocab_size, const std::string& param);
// ChatTemplate::encode with ChatError turned into RequestError. `raw_body` is the request as sent.
EncodedChat encode_chat(const ChatTemplate* chat_template, std::string_view raw_body);

// One engine request a prompt. `key_salt` keeps the prefix caches of different API keys apart.
// Throws context_length_exceeded when a prompt leaves no room for an answer.
std::vector<GenerateRequest> generate_requests(const ParsedRequest& parsed,
                                               std::vector<std::vector<int32_t>> prompts,
                                               const ParameterLimits& limits, const std::string& id,
                                               const std::string& key_salt);

}  // namespace tramontane
