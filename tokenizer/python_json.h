// JSON as Python's json.loads reads it and json.dumps(ensure_ascii=False) writes it. Chat encodings are
// defined by those two, so key order, number spelling and escapes matter down to the byte. For everything
// else nlohmann/json is the library to use.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace tramontane {

// A number by the text that Python prints for it: "1.0", "100000.0", "1e+16", "NaN"; integers of up to 4300
// digits are kept.
struct PythonNumber {
  std::string text;
  bool is_integer = false;  // written without fraction and exponent: Python's int
};

struct PythonJson {
  struct Member;
  using Array = std::vector<PythonJson>;
  using Object = std::vector<Member>;  // in order of first appearance; a duplicate key's last value wins, at
                                       // the first one's place

  std::variant<std::nullptr_t, bool, PythonNumber, std::string, Array, Object> value;  // null unless set

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value); }
  // The value as that type; null when it is another.
  const bool* boolean() const { return std::get_if<bool>(&value); }
  const PythonNumber* number() const { return std::get_if<PythonNumber>(&value); }
  const std::string* string() const { return std::get_if<std::string>(&value); }
  const Array* array() const { return std::get_if<Array>(&value); }
  const Object* object() const { return std::get_if<Object>(&value); }
  // The member `key` of an object; null when it is absent or this is no object.
  const PythonJson* find(std::string_view key) const;
  // "null", "a boolean", "a number", "a string", "an array", "an object".
  const char* type_name() const;
};

struct PythonJson::Member {
  std::string key;
  PythonJson value;
};

// Python's JSONDecodeError: the text is not JSON.
struct JsonSyntaxError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// JSON that Python reads or fails on otherwise and this reader refuses: nested deeper than kMaxJsonDepth, an
// integer of more than 4300 digits (Python's own limit), a surrogate without its partner (which no UTF-8 text
// can hold).
struct JsonRefusedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline constexpr size_t kMaxJsonDepth =
    256;  // Python's own limit is about a thousand; real requests stay below twenty

// Throws JsonSyntaxError or JsonRefusedError, naming the byte.
PythonJson parse_python_json(std::string_view text);
std::string dump_python_json(const PythonJson& value);

// repr(float): the shortest digits that read back as the same double, "inf" and "nan" as JSON's Infinity and
// NaN.
std::string python_float_text(double value);

}  // namespace tramontane
