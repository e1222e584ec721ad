#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Length of the character that this first byte announces (0: none), and the range its second byte must be in
// (Unicode, table 3-7).
struct FirstByte {
  size_t length;
  unsigned char low, high;
};

FirstByte classify(unsigned char byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};  // continuation bytes, and C0, C1: always overlong
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};  // above: surrogates
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

// Moves all whole characters of `bytes` to `out`, invalid bytes as U+FFFD; returns what is left: an
// incomplete character.
std::string_view take_characters(std::string_view bytes, std::string& out) {
  while (!bytes.empty()) {
    const Utf8Head head = utf8_head(bytes);
    if (head.kind == Utf8Head::Kind::incomplete) break;
    out.append(head.kind == Utf8Head::Kind::character ? bytes.substr(0, head.length) : kReplacement);
    bytes.remove_prefix(head.length);
  }
  return bytes;
}

}  // namespace

Utf8Head utf8_head(std::string_view text) {
  const FirstByte first = classify(static_cast<unsigned char>(text[0]));
  if (first.length == 0) return {Utf8Head::Kind::invalid, 1};
  for (size_t i = 1; i < first.length; ++i) {
    if (i == text.size()) return {Utf8Head::Kind::incomplete, text.size()};
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool fits = i == 1 ? byte >= first.low && byte <= first.high : (byte & 0xC0) == 0x80;
    if (!fits) return {Utf8Head::Kind::invalid, 1};
  }
  return {Utf8Head::Kind::character, first.length};
}

uint32_t decode_utf8(std::string_view character) {
  constexpr unsigned char kLeadBits[] = {0x7F, 0x1F, 0x0F, 0x07};
  uint32_t c = static_cast<unsigned char>(character[0]) & kLeadBits[character.size() - 1];
  for (const char byte : character.substr(1)) c = c << 6 | (static_cast<unsigned char>(byte) & 0x3F);
  return c;
}

void append_utf8(uint32_t code_point, std::string& out) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | code_point >> 12);
    tail(6);
    tail(0);
  } else {
    out += static_cast<char>(0xF0 | code_point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const Utf8Head head = utf8_head(text);
    if (head.kind != Utf8Head::Kind::character) return false;
    text.remove_prefix(head.length);
  }
  return true;
}

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  Utf8Assembler assembler;
  assembler.append(text, out);
  assembler.finish(out);
  return out;
}

void Utf8Assembler::append(std::string_view bytes, std::string& out) {
  if (held_.empty()) {
    held_ = take_characters(bytes, out);
    return;
  }
  held_.append(bytes);
  held_ = std::string(take_characters(held_, out));
}

void Utf8Assembler::finish(std::string& out) {
  for (size_t i = 0; i < held_.size(); ++i) out.append(kReplacement);
  held_.clear();
}

}  // namespace tramontane
