// Request bodies to JSON, and JSON to response bodies. Pure; any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tramontane {

// One JSON object. Throws RequestError 400 for malformed JSON, invalid UTF-8, numbers that no double holds
// (with `param`), nesting deeper than `max_depth`, or anything but an object at the top.
nlohmann::json parse_json_body(std::string_view body, int max_depth);

// Compact; bytes that are not UTF-8 (they can only come from a client's own input) become U+FFFD.
std::string to_body(const nlohmann::ordered_json& value);

}  // namespace tramontane
