// CompletionHandler: one chat or completion request from parsed JSON to the last byte of its answer. Each
// call runs on one HTTP thread.
#pragma once

#include "server/http_message.h"
#include "server/openai_request.h"
#include "server/server_state.h"

namespace tramontane {

// Throws RequestError when the request is refused. `raw_body` is request.body; `parsed` comes from it.
// `state` and `model` must outlive the response.
HttpResponse handle_completion(const HttpRequest& request, const ParsedRequest& parsed,
                               const ParameterLimits& limits, const ServedModel& model, ServerState& state);

// "a, b, c" for X-Ignored-Params: names of fields as the client spelled them, made safe for a header.
std::string header_list(const std::vector<std::string>& names);

}  // namespace tramontane
