#include "server/sse.h"

#include "server/json_body.h"

namespace tramontane {

void SseWriter::write(std::string_view bytes) {
  if (failed_) return;
  failed_ = !sink_.write(bytes);
  last_write_ = Clock::now();
}

void SseWriter::data(const nlohmann::ordered_json& object) {
  write("data: " + to_body(object) + "\n\n");
}

void SseWriter::done() {
  write("data: [DONE]\n\n");
}

void SseWriter::ping() {
  write(": ping\n\n");
}

void SseWriter::ping_if_quiet(Clock::time_point now) {
  if (now - last_write_ >= kPingEvery) ping();
}

bool SseWriter::alive() {
  if (!failed_ && !sink_.alive()) failed_ = true;
  return !failed_;
}

}  // namespace tramontane
