#include "server/json_body.h"

#include "engine/request.h"

namespace tramontane {
namespace {

using nlohmann::json;

RequestError bad_json(const std::string& message, const std::string& param = {},
                      const std::string& code = {}) {
  return RequestError(400, "invalid_request_error", param, message, code);
}

// "[json.exception.parse_error.101] parse error at line 1, …" without the bracket, and short: it may quote
// the whole offending token.
std::string readable(const char* what) {
  std::string text = what;
  if (const size_t end = text.find("] "); text.starts_with("[json") && end != std::string::npos)
    text.erase(0, end + 2);
  constexpr size_t kLongest = 200;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "…";
  return text;
}

// NaN and Infinity are what some clients write for numbers that JSON cannot spell.
bool starts_like_non_finite(std::string_view body, size_t error_byte) {
  return error_byte >= 1 && error_byte <= body.size() &&
         (body[error_byte - 1] == 'N' || body[error_byte - 1] == 'I');
}

}  // namespace

json parse_json_body(std::string_view body, int max_depth) {
  // The library takes a NUL for the end of the text, and would leave what follows it unread.
  if (body.find('\0') != std::string_view::npos) throw bad_json("The JSON body contains a NUL byte.");
  std::string top_key;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth >= max_depth &&
        (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start)) {
      throw bad_json("The JSON body is nested deeper than " + std::to_string(max_depth) + " levels.");
    }
    if (depth == 1 && event == json::parse_event_t::key) top_key = parsed.get<std::string>();
    return true;
  };
  json value;
  try {
    value = json::parse(body, watch);
  } catch (const json::parse_error& error) {
    if (starts_like_non_finite(body, error.byte)) {
      throw bad_json("Invalid value for '" + top_key + "': numbers must be finite.", top_key,
                     "invalid_value");
    }
    throw bad_json("We could not parse the JSON body of your request: " + readable(error.what()));
  } catch (const json::out_of_range& error) {
    throw bad_json("Invalid value for '" + top_key + "': " + readable(error.what()), top_key,
                   "invalid_value");
  }
  if (!value.is_object()) throw bad_json("The request body must be a JSON object.");
  return value;
}

std::string to_body(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace tramontane
