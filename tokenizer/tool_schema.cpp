#include "tokenizer/tool_schema.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

namespace tramontane {
namespace {

using Fault = std::optional<SchemaFault>;

bool is_integral(const PythonNumber& number) {
  return number.is_integer || number.text.ends_with(".0") || number.text.find("e+") != std::string::npos;
}
bool is_negative(const PythonNumber& number) {
  return number.text.starts_with('-');
}
bool is_zero(const PythonNumber& number) {
  return number.text == "0" || number.text == "0.0" || number.text == "-0.0";
}

Fault expected(const std::string& path, const std::string& what, const PythonJson& got) {
  const std::string text = dump_python_json(got);
  return SchemaFault{path, "expected " + what + ", got " + (text.size() <= 60 ? text : got.type_name())};
}

Fault check_schema(const PythonJson& schema, const std::string& path);

std::string below(const std::string& path, const std::string& key) {
  return path.empty() ? key : path + "." + key;
}

Fault check_string(const PythonJson& value, const std::string& path) {
  return value.string() ? std::nullopt : expected(path, "a string", value);
}
Fault check_boolean(const PythonJson& value, const std::string& path) {
  return value.boolean() ? std::nullopt : expected(path, "a boolean", value);
}
Fault check_number(const PythonJson& value, const std::string& path) {
  return value.number() ? std::nullopt : expected(path, "a number", value);
}
Fault check_positive(const PythonJson& value, const std::string& path) {
  const PythonNumber* number = value.number();
  const bool fits = number && !is_negative(*number) && !is_zero(*number);
  return fits ? std::nullopt : expected(path, "a number above 0", value);
}
Fault check_count(const PythonJson& value, const std::string& path) {
  const PythonNumber* number = value.number();
  const bool fits = number && is_integral(*number) && (!is_negative(*number) || is_zero(*number));
  return fits ? std::nullopt : expected(path, "an integer of at least 0", value);
}
Fault check_array(const PythonJson& value, const std::string& path) {
  return value.array() ? std::nullopt : expected(path, "an array", value);
}
Fault check_strings(const PythonJson& value, const std::string& path) {
  if (!value.array()) return expected(path, "an array of strings", value);
  std::set<std::string_view> seen;
  for (const PythonJson& item : *value.array()) {
    if (!item.string()) return expected(path, "an array of strings", value);
    if (!seen.insert(*item.string()).second)
      return SchemaFault{path, "\"" + *item.string() + "\" is named twice"};
  }
  return std::nullopt;
}
Fault check_schemas(const PythonJson& value, const std::string& path) {
  if (!value.array() || value.array()->empty()) return expected(path, "a non-empty array of schemas", value);
  for (size_t i = 0; i < value.array()->size(); ++i) {
    if (Fault fault = check_schema((*value.array())[i], path + "[" + std::to_string(i) + "]")) return fault;
  }
  return std::nullopt;
}
Fault check_schema_or_schemas(const PythonJson& value, const std::string& path) {
  return value.array() ? check_schemas(value, path) : check_schema(value, path);
}
Fault check_schema_or_strings(const PythonJson& value, const std::string& path) {
  return value.array() ? check_strings(value, path) : check_schema(value, path);
}

using Check = Fault (*)(const PythonJson&, const std::string&);

Fault check_members(const PythonJson& value, const std::string& path, Check check) {
  if (!value.object()) return expected(path, "an object", value);
  for (const PythonJson::Member& member : *value.object()) {
    if (Fault fault = check(member.value, below(path, member.key))) return fault;
  }
  return std::nullopt;
}
Fault check_schema_map(const PythonJson& value, const std::string& path) {
  return check_members(value, path, check_schema);
}
Fault check_dependencies(const PythonJson& value, const std::string& path) {
  return check_members(value, path, check_schema_or_strings);
}

bool is_simple_type(const PythonJson& value) {
  constexpr std::array<std::string_view, 7> kTypes = {"array",  "boolean", "integer", "null",
                                                      "number", "object",  "string"};
  return value.string() && std::find(kTypes.begin(), kTypes.end(), *value.string()) != kTypes.end();
}
Fault check_type(const PythonJson& value, const std::string& path) {
  constexpr const char* kWhat =
      "a JSON type name (array, boolean, integer, null, number, object, string) or a list of them";
  if (is_simple_type(value)) return std::nullopt;
  if (!value.array() || value.array()->empty()) return expected(path, kWhat, value);
  for (const PythonJson& item : *value.array()) {
    if (!is_simple_type(item)) return expected(path, kWhat, item);
  }
  return check_strings(value, path);
}

struct Keyword {
  std::string_view name;
  Check check;
};
constexpr Keyword kKeywords[] = {
    {"$id", check_string},
    {"$schema", check_string},
    {"$ref", check_string},
    {"$comment", check_string},
    {"title", check_string},
    {"description", check_string},
    {"format", check_string},
    {"pattern", check_string},
    {"contentMediaType", check_string},
    {"contentEncoding", check_string},
    {"readOnly", check_boolean},
    {"uniqueItems", check_boolean},
    {"maximum", check_number},
    {"exclusiveMaximum", check_number},
    {"minimum", check_number},
    {"exclusiveMinimum", check_number},
    {"multipleOf", check_positive},
    {"maxLength", check_count},
    {"minLength", check_count},
    {"maxItems", check_count},
    {"minItems", check_count},
    {"maxProperties", check_count},
    {"minProperties", check_count},
    {"examples", check_array},
    {"enum", check_array},
    {"required", check_strings},
    {"type", check_type},
    {"items", check_schema_or_schemas},
    {"additionalItems", check_schema},
    {"contains", check_schema},
    {"additionalProperties", check_schema},
    {"propertyNames", check_schema},
    {"not", check_schema},
    {"if", check_schema},
    {"then", check_schema},
    {"else", check_schema},
    {"allOf", check_schemas},
    {"anyOf", check_schemas},
    {"oneOf", check_schemas},
    {"definitions", check_schema_map},
    {"properties", check_schema_map},
    {"patternProperties", check_schema_map},
    {"dependencies", check_dependencies},
};

Fault check_schema(const PythonJson& schema, const std::string& path) {
  if (schema.boolean()) return std::nullopt;
  if (!schema.object()) return expected(path, "a schema (an object or a boolean)", schema);
  for (const PythonJson::Member& member : *schema.object()) {
    const auto keyword = std::find_if(std::begin(kKeywords), std::end(kKeywords),
                                      [&](const Keyword& known) { return known.name == member.key; });
    if (keyword == std::end(kKeywords)) continue;
    if (Fault fault = keyword->check(member.value, below(path, member.key))) return fault;
  }
  return std::nullopt;
}

}  // namespace

std::optional<SchemaFault> find_schema_fault(const PythonJson& schema) {
  return check_schema(schema, "");
}

}  // namespace tramontane
