#include "tokenizer/stream_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/tokenizer/byte_tokenizer.h"
#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

using testing::ElementsAre;

struct Streamed {
  std::vector<std::string> deltas;  // one for each byte, then what finish() gave
  bool stopped = false;
  std::string text() const {
    std::string all;
    for (const std::string& delta : deltas) all += delta;
    return all;
  }
};

Streamed stream(const std::string& text, std::vector<std::string> stops) {
  const auto tokenizer = byte_tokenizer();
  StreamDecoder decoder(*tokenizer, std::move(stops));
  Streamed out;
  for (const char byte : text) out.deltas.push_back(decoder.append(byte_id(byte)));
  out.deltas.push_back(decoder.finish());
  out.stopped = decoder.stopped();
  return out;
}

TEST(StreamDecoder, HoldsBackOnlyWhatMayBecomeAStop) {
  EXPECT_THAT(stream("abcd", {"bcx"}).deltas, ElementsAre("a", "", "", "bcd", ""));
  EXPECT_THAT(stream("aab", {"ab"}).deltas, ElementsAre("", "a", "", ""));
  EXPECT_THAT(stream("ababac", {"abac"}).deltas, ElementsAre("", "", "", "ab", "", "", ""));
  EXPECT_THAT(stream("xST", {"STOP"}).deltas, ElementsAre("x", "", "", "ST"));
  EXPECT_THAT(stream("hello", {}).deltas, ElementsAre("h", "e", "l", "l", "o", ""));
}

TEST(StreamDecoder, StopsAtTheFirstStopToEnd) {
  EXPECT_EQ(stream("one STOP two", {"STOP"}).text(), "one ");
  EXPECT_TRUE(stream("one STOP two", {"STOP"}).stopped);
  EXPECT_FALSE(stream("one STO two", {"STOP"}).stopped);
  EXPECT_EQ(stream("one STO two", {"STOP"}).text(), "one STO two");
  EXPECT_EQ(stream("abcd", {"cd", "bc"}).text(), "a");   // "bc" ends first
  EXPECT_EQ(stream("abcd", {"abcd", "b"}).text(), "a");  // "b" ends first, though "abcd" begins first
  EXPECT_EQ(stream("xabc", {"c", "abc"}).text(), "x");   // both end there: the longest
  EXPECT_EQ(stream("aaaa", {"aa"}).text(), "");
  EXPECT_EQ(stream("stop", {"stop"}).text(), "");
  EXPECT_EQ(stream("a\n\nb", {"\n\n"}).text(), "a");
  EXPECT_EQ(stream("abc", {"", "c"}).text(), "ab");  // an empty stop string stops nothing
}

TEST(StreamDecoder, StopsOfSeveralBytesACharacter) {
  EXPECT_THAT(stream("a\u00E9\u65E5", {"\u65E5"}).deltas, ElementsAre("a", "", "\u00E9", "", "", "", ""));
  // A stop that shares first bytes with another character: nothing is split.
  EXPECT_THAT(stream("\u65E6x", {"\u65E5"}).deltas, ElementsAre("", "", "\u65E6", "x", ""));
  EXPECT_EQ(stream("ok\U0001F600!", {"\U0001F600"}).text(), "ok");
}

TEST(StreamDecoder, AnIncompleteCharacterMayCompleteAStop) {
  EXPECT_EQ(stream("ab\xE2", {"b\uFFFD"}).text(), "a");
  EXPECT_TRUE(stream("ab\xE2", {"b\uFFFD"}).stopped);
}

TEST(StreamDecoder, SaysNothingAfterTheStop) {
  const auto tokenizer = byte_tokenizer({"xSTOPy"});
  StreamDecoder decoder(*tokenizer, {"STOP"});
  EXPECT_EQ(decoder.append(259), "x");
  EXPECT_TRUE(decoder.stopped());
  EXPECT_EQ(decoder.append(259), "");
  EXPECT_EQ(decoder.finish(), "");
}

// Every pattern of up to 8 letters, whatever it shares with itself, against the plain definition.
TEST(StopMatcher, MatchesTheLongestBeginning) {
  std::mt19937 random(7);
  std::string text;
  for (int i = 0; i < 400; ++i) text += random() % 3 == 0 ? 'b' : 'a';
  for (size_t length = 1; length <= 8; ++length) {
    for (unsigned bits = 0; bits < 1u << length; ++bits) {
      std::string stop;
      for (size_t i = 0; i < length; ++i) stop += bits >> i & 1 ? 'b' : 'a';
      StopMatcher matcher(stop);
      for (size_t end = 1; end <= text.size(); ++end) {
        matcher.advance(text[end - 1]);
        size_t longest = std::min(end, length);
        while (text.compare(end - longest, longest, stop, 0, longest) != 0) --longest;
        ASSERT_EQ(matcher.matched(), longest) << stop << " at " << end;
      }
    }
  }
}

// The plain definition, on the whole text: the stop that ends first, of those the longest.
std::pair<std::string, bool> cut_at_stop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StreamDecoder, EqualsTheWholeTextCutAtTheStop) {
  std::mt19937 random(4);
  const std::vector<std::string> letters = {"a", "b", "\u00E9", "\u00E8", "\U0001F600", " "};
  const auto word = [&](size_t longest) {
    std::string out;
    for (size_t n = 1 + random() % longest; n > 0; --n) out += letters[random() % letters.size()];
    return out;
  };
  // Tokens of several characters beside single bytes, so that stops begin and end inside tokens.
  const auto tokenizer = byte_tokenizer({"ab", "b\u00E9a", "\u2581a", "aab\u2581", "\u00E8\u00E8"});
  size_t stopped = 0;
  for (int round = 0; round < 5000; ++round) {
    const std::vector<std::string> stops = {word(3), word(4), word(6)};
    std::vector<int32_t> ids;
    for (int n = 0; n < 8; ++n) {
      if (random() % 2)
        ids.push_back(static_cast<int32_t>(259 + random() % 5));
      else
        for (const char byte : word(2)) ids.push_back(byte_id(byte));
    }
    if (random() % 4 == 0) ids.push_back(byte_id('\xE2'));
    const auto [expected, expected_stop] = cut_at_stop(tokenizer->decode(ids), stops);
    StreamDecoder decoder(*tokenizer, stops);
    std::string text;
    for (const int32_t id : ids) {
      const std::string delta = decoder.append(id);
      ASSERT_TRUE(is_valid_utf8(delta));
      text += delta;
    }
    text += decoder.finish();
    ASSERT_EQ(text, expected);
    ASSERT_EQ(decoder.stopped(), expected_stop);
    stopped += expected_stop;
  }
  EXPECT_GT(stopped, 1000u);
  EXPECT_LT(stopped, 4900u);
}

}  // namespace
}  // namespace tramontane
