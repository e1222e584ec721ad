// RequestRecord: what one request's log line says. Filled by the thread that serves it; never holds a prompt
// or an answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tramontane {

struct RequestRecord {
  std::chrono::steady_clock::time_point received = std::chrono::steady_clock::now();
  std::string id, key, method, path;
  int status = 0;
  int64_t prompt_tokens = -1, cached_tokens = 0,
          completion_tokens = 0;  // prompt_tokens < 0: nothing was generated
  double queue_s = 0, prefill_s = 0, decode_s = 0, total_s = 0;
  std::string finish;  // "stop", "length", "client gone", …

  // "POST /v1/chat/completions 200 id=… prompt=12 …", or a JSON object.
  std::string to_text() const;
  std::string to_json() const;
};

}  // namespace tramontane
