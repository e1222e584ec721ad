// SseWriter: server-sent events as OpenAI's clients read them. One thread, one response.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>

#include "server/http_message.h"

namespace tramontane {

class SseWriter {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kPingEvery{10};  // shorter than the idle limits of the usual proxies

  explicit SseWriter(ByteSink& sink) : sink_(sink) {}

  // `data: {…}`. After a failed write everything is a no-op.
  void data(const nlohmann::ordered_json& object);
  // `data: [DONE]`
  void done();
  // A comment: ignored by clients, keeps proxies from giving up.
  void ping();
  // Pings when nothing was written for kPingEvery.
  void ping_if_quiet(Clock::time_point now);
  // False once a write failed or the client has closed.
  bool alive();

 private:
  void write(std::string_view bytes);

  ByteSink& sink_;
  Clock::time_point last_write_ = Clock::now();
  bool failed_ = false;
};

}  // namespace tramontane
