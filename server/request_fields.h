// The one table of request fields: name, where it applies, type, range, and what it sets. It drives
// validation (and /openapi.json later).
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "server/openai_request.h"

namespace tramontane {

enum class FieldType : uint8_t { boolean, integer, number, string, array, object, any };
enum class FieldSupport : uint8_t {
  supported,
  ignored,  // known, no effect here: named in X-Ignored-Params, 400 with --strict
};

struct RequestField {
  std::string_view name;
  unsigned endpoints;  // Endpoint bits
  FieldType type;
  double min, max;  // integer and number, both included; string: bytes
  FieldSupport support;
  std::string_view help;
  // Called with a value of the right type and range, never null. Throws RequestError for what the table
  // cannot say.
  void (*apply)(const nlohmann::json& value, const ParameterLimits& limits, ParsedRequest& parsed);
};

std::span<const RequestField> request_fields();
const RequestField* find_field(std::string_view name, Endpoint endpoint);

// Type and range. Throws RequestError 400 in OpenAI's words.
void check_field(const RequestField& field, const nlohmann::json& value);

// For values inside a field: "stop[3]", "logit_bias.17".
RequestError wrong_type(const std::string& param, const std::string& expected, const nlohmann::json& value);
RequestError wrong_value(const std::string& param, const std::string& why);

}  // namespace tramontane
