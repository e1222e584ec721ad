#include "server/request_record.h"

#include <fmt/format.h>

#include "server/json_body.h"

namespace tramontane {
namespace {

// A path is the client's own text: no line breaks or escapes reach the log, and no kilobytes.
std::string printable(const std::string& text) {
  std::string out = text.substr(0, 200);
  for (char& c : out) {
    if (c <= ' ' || c > '~') c = '?';
  }
  return out;
}

}  // namespace

std::string RequestRecord::to_text() const {
  std::string line = fmt::format("{} {} {} id={}", method, printable(path), status, id);
  if (!key.empty()) line += " key=" + key;
  if (prompt_tokens >= 0) {
    line += fmt::format(" prompt={} cached={} completion={} queue={:.3f}s prefill={:.3f}s decode={:.3f}s",
                        prompt_tokens, cached_tokens, completion_tokens, queue_s, prefill_s, decode_s);
  }
  line += fmt::format(" total={:.3f}s", total_s);
  if (!finish.empty()) line += " finish=\"" + finish + "\"";
  return line;
}

std::string RequestRecord::to_json() const {
  nlohmann::ordered_json line = {
      {"method", method}, {"path", printable(path)}, {"status", status}, {"id", id}};
  if (!key.empty()) line["key"] = key;
  if (prompt_tokens >= 0) {
    line["prompt_tokens"] = prompt_tokens;
    line["cached_tokens"] = cached_tokens;
    line["completion_tokens"] = completion_tokens;
    line["queue_s"] = queue_s;
    line["prefill_s"] = prefill_s;
    line["decode_s"] = decode_s;
  }
  line["total_s"] = total_s;
  if (!finish.empty()) line["finish"] = finish;
  return to_body(line);
}

}  // namespace tramontane
