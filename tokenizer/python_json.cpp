#include "tokenizer/python_json.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <unordered_map>

#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

constexpr size_t kMaxIntegerDigits = 4300;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

double read_double(const std::string& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Out of range leaves the value open: infinity or zero. strtod tells which (the program stays in the "C"
  // locale).
  return error == std::errc::result_out_of_range ? std::strtod(text.c_str(), nullptr) : value;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  PythonJson parse() {
    if (!is_valid_utf8(text_)) throw JsonSyntaxError("not valid UTF-8");
    PythonJson value = parse_value(0);
    skip_space();
    if (at_ != text_.size()) fail("extra data");
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw JsonSyntaxError(what + " at byte " + std::to_string(at_));
  }
  [[noreturn]] void refuse(const std::string& what) const {
    throw JsonRefusedError(what + " at byte " + std::to_string(at_));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void skip_space() {
    while (at_ < text_.size() &&
           (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  PythonJson parse_value(size_t depth) {
    if (depth > kMaxJsonDepth) refuse("nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
    skip_space();
    if (take("{")) return {parse_object(depth)};
    if (take("[")) return {parse_array(depth)};
    if (take("\"")) return {parse_string()};
    if (take("null")) return {nullptr};
    if (take("true")) return {true};
    if (take("false")) return {false};
    if (take("NaN")) return {PythonNumber{"NaN"}};
    if (take("Infinity")) return {PythonNumber{"Infinity"}};
    if (take("-Infinity")) return {PythonNumber{"-Infinity"}};
    return {parse_number()};
  }

  PythonJson::Array parse_array(size_t depth) {
    PythonJson::Array items;
    skip_space();
    if (take("]")) return items;
    while (true) {
      items.push_back(parse_value(depth + 1));
      skip_space();
      if (take("]")) return items;
      if (!take(",")) fail("expected ',' or ']'");
    }
  }

  PythonJson::Object parse_object(size_t depth) {
    PythonJson::Object members;
    std::unordered_map<std::string, size_t> places;
    skip_space();
    if (take("}")) return members;
    while (true) {
      skip_space();
      if (!take("\"")) fail("expected a property name in double quotes");
      std::string key = parse_string();
      skip_space();
      if (!take(":")) fail("expected ':'");
      PythonJson value = parse_value(depth + 1);
      const auto [place, is_new] = places.emplace(key, members.size());
      if (is_new)
        members.push_back({std::move(key), std::move(value)});
      else
        members[place->second].value = std::move(value);
      skip_space();
      if (take("}")) return members;
      if (!take(",")) fail("expected ',' or '}'");
    }
  }

  // Behind the opening quote.
  std::string parse_string() {
    std::string out;
    while (true) {
      const size_t begin = at_;
      while (at_ < text_.size() && text_[at_] != '"' && text_[at_] != '\\' &&
             static_cast<unsigned char>(text_[at_]) >= 0x20)
        ++at_;
      out.append(text_.substr(begin, at_ - begin));
      if (at_ == text_.size()) fail("unterminated string");
      if (take("\"")) return out;
      if (!take("\\")) fail("control character in a string");
      parse_escape(out);
    }
  }

  void parse_escape(std::string& out) {
    constexpr std::string_view kNames = "\"\\/bfnrt", kValues = "\"\\/\b\f\n\r\t";
    if (take("u")) return parse_unicode_escape(out);
    const size_t which = at_ < text_.size() ? kNames.find(text_[at_]) : std::string_view::npos;
    if (which == std::string_view::npos) fail("invalid escape");
    out += kValues[which];
    ++at_;
  }

  void parse_unicode_escape(std::string& out) {
    uint32_t c = parse_hex4();
    if (c >= 0xD800 && c <= 0xDBFF && take("\\u")) {
      const uint32_t low = parse_hex4();
      if (low < 0xDC00 || low > 0xDFFF) refuse("a surrogate without its partner");
      c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
    } else if (c >= 0xD800 && c <= 0xDFFF) {
      refuse("a surrogate without its partner");
    }
    append_utf8(c, out);
  }

  uint32_t parse_hex4() {
    uint32_t value = 0;
    const std::string_view digits = text_.substr(at_, 4);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (digits.size() != 4 || error != std::errc() || end != digits.data() + 4) fail("invalid \\u escape");
    at_ += 4;
    return value;
  }

  size_t take_digits() {
    const size_t begin = at_;
    while (is_digit(peek())) ++at_;
    return at_ - begin;
  }

  // -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)? ; a dot or an e without digits behind it is not part of
  // the number.
  PythonNumber parse_number() {
    const size_t begin = at_;
    take("-");
    const size_t integer_begin = at_;
    const size_t n_digits = peek() == '0' ? (++at_, 1) : take_digits();
    if (n_digits == 0) {
      at_ = begin;
      fail("expected a value");
    }
    bool is_integer = true;
    if (at_ + 1 < text_.size() && peek() == '.' && is_digit(text_[at_ + 1])) {
      ++at_;
      take_digits();
      is_integer = false;
    }
    if (peek() == 'e' || peek() == 'E') {
      const size_t mark = at_++;
      if (peek() == '-' || peek() == '+') ++at_;
      if (take_digits() > 0)
        is_integer = false;
      else
        at_ = mark;
    }
    const std::string_view text = text_.substr(begin, at_ - begin);
    if (!is_integer) return {python_float_text(read_double(std::string(text)))};
    if (n_digits > kMaxIntegerDigits)
      refuse("an integer of more than " + std::to_string(kMaxIntegerDigits) + " digits");
    // Python's int has no negative zero.
    return {text_[integer_begin] == '0' ? "0" : std::string(text), true};
  }

  std::string_view text_;
  size_t at_ = 0;
};

void write_string(std::string_view text, std::string& out) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

void write(const PythonJson& json, std::string& out) {
  if (const bool* boolean = json.boolean()) {
    out += *boolean ? "true" : "false";
  } else if (const PythonNumber* number = json.number()) {
    out += number->text;
  } else if (const std::string* text = json.string()) {
    write_string(*text, out);
  } else if (const PythonJson::Array* items = json.array()) {
    const char* separator = "[";
    for (const PythonJson& item : *items) {
      out += separator;
      write(item, out);
      separator = ", ";
    }
    out += items->empty() ? "[]" : "]";
  } else if (const PythonJson::Object* members = json.object()) {
    const char* separator = "{";
    for (const PythonJson::Member& member : *members) {
      out += separator;
      write_string(member.key, out);
      out += ": ";
      write(member.value, out);
      separator = ", ";
    }
    out += members->empty() ? "{}" : "}";
  } else {
    out += "null";
  }
}

}  // namespace

const PythonJson* PythonJson::find(std::string_view key) const {
  const Object* members = object();
  if (!members) return nullptr;
  for (const Member& member : *members) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

const char* PythonJson::type_name() const {
  constexpr const char* kNames[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
  return kNames[value.index()];
}

PythonJson parse_python_json(std::string_view text) {
  return Parser(text).parse();
}

std::string dump_python_json(const PythonJson& value) {
  std::string out;
  write(value, out);
  return out;
}

std::string python_float_text(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[40];
  const auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  const int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16)
    return text;  // "1e+16", "1.5e-07": at least two digits of exponent, as in Python
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

}  // namespace tramontane
