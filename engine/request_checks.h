// The door: every number of a request is checked here once, so that the engine thread can trust what it is
// given. Pure.
#pragma once

#include <cstddef>

#include "engine/request.h"

namespace tramontane {

// Beyond what any client sends; they bound what one request can make us reserve.
inline constexpr size_t kMaxStopIds = 1024;    // ids that a request may stop on
inline constexpr size_t kMaxLogitBias = 1024;  // entries of logit_bias

struct RequestLimits {
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;
};

// Throws RequestError 400 "invalid_request_error" naming the parameter, the range and the value; prompt +
// max_tokens beyond max_model_len has code "context_length_exceeded" and both numbers in its message.
void check_request(const GenerateRequest& request, const RequestLimits& limits);

}  // namespace tramontane
