// What the HTTP layer and the engine say to each other: a request as token ids, events back. No text here
// (decision 1).
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/channel.h"

namespace tramontane {

// Bad input from a client; becomes a 4xx in OpenAI's form. `param` and `code` may be empty (null in JSON).
struct RequestError : std::runtime_error {
  RequestError(int status, std::string type, std::string param, const std::string& message,
               std::string code = {})
      : std::runtime_error(message),
        status(status),
        type(std::move(type)),
        param(std::move(param)),
        code(std::move(code)) {}
  int status;
  std::string type, param, code;
  int retry_after_s = 0;  // > 0: send Retry-After
};

// Ranges are checked by Engine::submit (RequestError 400 naming the param), so a bad value never reaches a
// step.
struct SamplingParams {
  float temperature = 1.0f;         // 0: greedy; <= 100
  float top_p = 1.0f;               // (0, 1]
  int32_t top_k = 0;                // 0: off
  float min_p = 0.0f;               // [0, 1]
  float repetition_penalty = 1.0f;  // [0.01, 100]; over prompt and output, as in CTRL (Keskar et al. 2019)
  float presence_penalty = 0.0f, frequency_penalty = 0.0f;  // [-2, 2]; over output only, OpenAI's definition
  std::vector<std::pair<int32_t, float>> logit_bias;        // added to the logit; [-100, 100]
  uint64_t seed = 0;                                        // the caller draws one when the client sent none
  int32_t max_tokens = 16;                                  // > 0 (0 only together with prompt_logprobs)
  int32_t min_tokens = 0;  // no end-of-sequence or stop id is sampled before this many tokens
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // besides the model's own end-of-sequence ids
  int32_t logprobs = -1;                // -1: none; k in 0..20: the sampled token's and the k likeliest
  int32_t prompt_logprobs = -1;         // likewise for every prompt position but the first
};

struct GenerateRequest {
  std::string id;               // for logs
  std::vector<int32_t> prompt;  // not empty; ids in range
  SamplingParams sampling;
  int32_t n = 1;           // sequences, seeds seed, seed+1, …; they share the prompt's KV blocks
  int32_t priority = 0;    // lower runs first
  std::string cache_salt;  // prefix cache entries are shared only between equal salts
  std::optional<std::chrono::steady_clock::time_point> deadline;
};

enum class FinishReason : uint8_t { none, stop, length, cancelled, deadline, queue_timeout, error };

struct TokenLogprob {
  int32_t token = -1;
  float logprob =
      0.0f;  // natural log of the model's own distribution, before temperature, penalties and bias
};

// One thing that happened to sequence `index` of a request, in order. A finishing event is the last of its
// sequence; each sequence gets exactly one.
struct TokenEvent {
  enum class Kind : uint8_t { prompt_logprob, token, finished };
  Kind kind = Kind::token;
  FinishReason finish = FinishReason::none;
  int16_t n_top = 0;  // entries of `top`
  int32_t index = 0;
  int32_t token = -1;  // sampled; prompt_logprob: the prompt's own token. The end-of-sequence or stop id that
                       // ended a sequence is not sent.
  float logprob = 0.0f;               // only when asked for
  const TokenLogprob* top = nullptr;  // [n_top], likeliest first; lives as long as the Generation
};

// Per-request figures in seconds, complete before the last finishing event is sent.
struct RequestTimings {
  double queue_s = 0;    // submit to the first step that has a row of it
  double prefill_s = 0;  // from there to the first token
  double decode_s = 0;   // from there to the last finishing event
  int32_t cached_tokens =
      0;  // prompt tokens taken from the prefix cache (by the sequence that computed the prompt)
};

// The only object that the HTTP thread and the engine thread share for a request.
struct Generation {
  explicit Generation(int32_t n) : sequence_cancelled(static_cast<size_t>(n)) {}

  // Engine pushes, one HTTP thread pops. Room for every event is reserved by submit. Prompt logprobs come
  // once, with index 0 and in order, before any token.
  Channel<TokenEvent> events;
  std::atomic<bool> cancelled =
      false;  // set by the HTTP thread: client gone, stop string found; leaves before the next step
  std::vector<std::atomic<bool>> sequence_cancelled;  // one of n only (its stop string was found)
  RequestTimings timings;                             // read after the last finishing event
  std::vector<TokenLogprob>
      top_storage;  // what TokenEvent::top points into: engine's own, reserved by submit
};

}  // namespace tramontane
