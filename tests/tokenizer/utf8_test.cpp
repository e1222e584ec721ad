#include "tokenizer/utf8.h"

#include <gtest/gtest.h>

namespace tramontane {
namespace {

// U+FFFD for each byte that can be part of no character, none for what precedes it (FORMATS 1e, "Decode").
TEST(Utf8, RepairsByteByByte) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(repair_utf8("h\u00E9 \u65E5 \U0001F600"), "h\u00E9 \u65E5 \U0001F600");
  EXPECT_EQ(repair_utf8("\x80"), r);
  EXPECT_EQ(repair_utf8("\xC0\x80"), r + r);                  // overlong
  EXPECT_EQ(repair_utf8("\xE0\x80\x80"), r + r + r);          // overlong
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // past U+10FFFF
  EXPECT_EQ(repair_utf8("\xF5\xFF"), r + r);
  EXPECT_EQ(repair_utf8("\xE2\x82x"), r + r + "x");
  EXPECT_EQ(repair_utf8("\xE2\x82"), r + r);
  EXPECT_EQ(repair_utf8("\xE2\xE2\x82\xAC"), r + "\u20AC");
}

TEST(Utf8, ValidityAgreesWithRepair) {
  for (unsigned first = 0; first < 256; ++first) {
    for (unsigned second = 0; second < 256; ++second) {
      for (const char* tail : {"", "\x80", "\x80\x80", "\xBFz"}) {
        const std::string text = std::string{static_cast<char>(first), static_cast<char>(second)} + tail;
        ASSERT_EQ(is_valid_utf8(text), repair_utf8(text) == text) << first << " " << second;
        ASSERT_TRUE(is_valid_utf8(repair_utf8(text)));
      }
    }
  }
}

TEST(Utf8, EncodesAndDecodesEveryCodePoint) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    append_utf8(c, text);
    const Utf8Head head = utf8_head(text);
    ASSERT_EQ(head.kind, Utf8Head::Kind::character);
    ASSERT_EQ(head.length, text.size());
    ASSERT_EQ(decode_utf8(text), c);
    if (text.size() > 1) {
      const std::string_view cut = std::string_view(text).substr(0, text.size() - 1);
      ASSERT_EQ(utf8_head(cut).kind, Utf8Head::Kind::incomplete);
    }
  }
}

TEST(Utf8Assembler, GivesCharactersWhenTheyAreWhole) {
  Utf8Assembler assembler;
  const auto feed = [&](std::string_view bytes) {
    std::string out;
    assembler.append(bytes, out);
    return out;
  };
  EXPECT_EQ(feed("\xF0"), "");
  EXPECT_EQ(feed("\x9F\x98"), "");
  EXPECT_FALSE(assembler.empty());
  EXPECT_EQ(feed("\x80!\xC3"), "\U0001F600!");
  EXPECT_EQ(feed("x"), "\uFFFDx");
  EXPECT_EQ(feed("\xE2\x82"), "");
  std::string out;
  assembler.finish(out);
  EXPECT_EQ(out, "\uFFFD\uFFFD");
  EXPECT_TRUE(assembler.empty());
}

}  // namespace
}  // namespace tramontane
