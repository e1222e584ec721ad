// Splits PTX text into tokens.
#pragma once

#include <string_view>
#include <vector>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator::ptx {

struct Token {
  enum class Kind { kWord, kNumber, kString, kPunctuation, kEnd };
  Kind kind = Kind::kEnd;
  std::string_view text;  // of the source; a string without its quotes
  u32 line = 0;
  bool is(std::string_view other) const { return kind != Kind::kString && text == other; }
};

// The tokens of `source`, which must outlive them, closed by one of kind kEnd. A word includes its dots and
// the "::" of an opcode. Throws std::runtime_error with the line for text that is no PTX.
std::vector<Token> tokenize(std::string_view source);

}  // namespace tramontane::emulator::ptx
