// UTF-8 by the strict rules (no overlong forms, no surrogates, nothing past U+10FFFF): checks, repairs and
// assembly from single bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tramontane {

// What the first bytes of `text` (not empty) are: a whole character of `length` bytes, the valid beginning of
// one that `text` cuts off, or a first byte that can start no character here.
struct Utf8Head {
  enum class Kind { character, incomplete, invalid } kind;
  size_t length;  // character: 1..4; incomplete: all of `text`; invalid: 1
};
Utf8Head utf8_head(std::string_view text);

// The code point of one valid character, and back. `code_point` is no surrogate and at most U+10FFFF.
uint32_t decode_utf8(std::string_view character);
void append_utf8(uint32_t code_point, std::string& out);

bool is_valid_utf8(std::string_view text);
// Each invalid byte becomes one U+FFFD (SentencePiece's rule).
std::string repair_utf8(std::string_view text);

// Bytes to whole characters; an invalid byte becomes U+FFFD as soon as it is known to be one. One thread.
class Utf8Assembler {
 public:
  void append(std::string_view bytes, std::string& out);
  // U+FFFD for each byte still held.
  void finish(std::string& out);
  bool empty() const { return held_.empty(); }

 private:
  std::string held_;  // at most three bytes between calls: an incomplete character
};

}  // namespace tramontane
