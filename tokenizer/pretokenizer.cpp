#include "tokenizer/pretokenizer.h"

#include <unicode/uchar.h>

#include <array>
#include <cstdint>

#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

enum class CharClass : uint8_t { end, space, letter, number, other };

struct Char {
  CharClass kind;
  size_t length;  // bytes; 0 at the end
};

Char char_at(std::string_view text, size_t position) {
  if (position >= text.size()) return {CharClass::end, 0};
  const size_t length = utf8_head(text.substr(position)).length;
  const auto c = static_cast<UChar32>(decode_utf8(text.substr(position, length)));
  const uint32_t mask = U_GET_GC_MASK(c);
  const CharClass kind = u_isUWhiteSpace(c)     ? CharClass::space
                         : (mask & U_GC_L_MASK) ? CharClass::letter
                         : (mask & U_GC_N_MASK) ? CharClass::number
                                                : CharClass::other;
  return {kind, length};
}

// End of the run of characters of this class that begins at `position`.
size_t end_of_run(std::string_view text, size_t position, CharClass kind) {
  for (Char c = char_at(text, position); c.kind == kind; c = char_at(text, position)) position += c.length;
  return position;
}

size_t contraction_at(std::string_view text, size_t position) {
  constexpr std::array<std::string_view, 7> kEndings = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
  for (const std::string_view ending : kEndings) {
    if (text.substr(position).starts_with(ending)) return ending.size();
  }
  return 0;
}

// \s+(?!\S)|\s+ : a run of spaces leaves its last one to the word behind it. The fragment ends where a number
// begins: for the pattern that is the end of the text, so a run before a number is taken whole.
size_t end_of_spaces(std::string_view text, size_t begin) {
  size_t last = begin, end = begin;
  for (Char c = char_at(text, end); c.kind == CharClass::space; c = char_at(text, end)) {
    last = end;
    end += c.length;
  }
  const CharClass behind = char_at(text, end).kind;
  const bool whole = behind == CharClass::end || behind == CharClass::number || last == begin;
  return whole ? end : last;
}

size_t end_of_word(std::string_view text, size_t begin) {
  const Char first = char_at(text, begin);
  if (first.kind == CharClass::number) return begin + first.length;
  if (text[begin] == '\'') {
    if (const size_t length = contraction_at(text, begin)) return begin + length;
  }
  const size_t body = begin + (text[begin] == ' ' ? 1 : 0);
  const CharClass kind = char_at(text, body).kind;
  if (kind == CharClass::letter || kind == CharClass::other) return end_of_run(text, body, kind);
  return end_of_spaces(text, begin);
}

}  // namespace

std::vector<std::string_view> split_smollm(std::string_view text) {
  std::vector<std::string_view> words;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = end_of_word(text, begin);
    words.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return words;
}

}  // namespace tramontane
