// Names for parameterised cases that are told apart by a text with signs in it: gtest takes letters, digits
// and underscores only.
#pragma once

#include <cctype>
#include <cstddef>
#include <string>
#include <string_view>

namespace tramontane {

// Case 3 of `"temperature": -1` is "3_temperature_minus_1"; the index keeps names apart that differ in signs
// only.
inline std::string case_name(size_t index, std::string_view text) {
  std::string name = std::to_string(index);
  bool in_word = false;
  for (const char sign : text.substr(0, 60)) {
    const bool minus = sign == '-' && !in_word;
    const bool word = std::isalnum(static_cast<unsigned char>(sign));
    if ((word || minus) && !in_word) name += '_';
    if (minus) name += "minus_";
    if (word) name += sign;
    in_word = word || minus;
  }
  return name;
}

}  // namespace tramontane
