// Expected texts were printed by Python 3.11: json.dumps(json.loads(text), ensure_ascii=False).
#include "tokenizer/python_json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace tramontane {
namespace {

std::string round_trip(std::string_view text) {
  return dump_python_json(parse_python_json(text));
}

TEST(PythonJson, Numbers) {
  const std::pair<const char*, const char*> cases[] = {
      {"0", "0"},
      {"-0", "0"},
      {"-0.0", "-0.0"},
      {"1.0", "1.0"},
      {"1.50", "1.5"},
      {"100", "100"},
      {"1e5", "100000.0"},
      {"1E+2", "100.0"},
      {"1e15", "1000000000000000.0"},
      {"9999999999999998.0", "9999999999999998.0"},
      {"1e16", "1e+16"},
      {"123456789012345680.0", "1.2345678901234568e+17"},
      {"0.0001", "0.0001"},
      {"0.00001", "1e-05"},
      {"1E-7", "1e-07"},
      {"1.5e-7", "1.5e-07"},
      {"0.1", "0.1"},
      {"0.30000000000000004", "0.30000000000000004"},
      {"1e100", "1e+100"},
      {"5e-324", "5e-324"},
      {"1e-400", "0.0"},
      {"-1e-400", "-0.0"},
      {"2.2250738585072014e-308", "2.2250738585072014e-308"},
      {"1e999", "Infinity"},
      {"-1e999", "-Infinity"},
      {"NaN", "NaN"},
      {"Infinity", "Infinity"},
      {"-Infinity", "-Infinity"},
      {"100000000000000000000", "100000000000000000000"},
      {"-123456789012345678901234567890", "-123456789012345678901234567890"},
      {"1e21", "1e+21"},
      {"123456789.123456789", "123456789.12345679"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(round_trip(text), expected) << text;
}

TEST(PythonJson, FloatsReadBackAsThemselves) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; ++i) {
    const uint64_t bits = random();
    double value;
    std::memcpy(&value, &bits, sizeof value);
    if (!std::isfinite(value)) continue;
    const std::string text = python_float_text(value);
    ASSERT_EQ(std::strtod(text.c_str(), nullptr), value) << text;
    ASSERT_EQ(round_trip(text), text);
  }
}

TEST(PythonJson, StringsAndStructure) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"a":1,"b":2,"a":3})", R"({"a": 3, "b": 2})"},
      {R"( [ 1 ,2,[ ] , { } ] )", R"([1, 2, [], {}])"},
      {R"({"z":null,"a":true,"m":false})", R"({"z": null, "a": true, "m": false})"},
      {R"("\u00e9\u4e2d\ud83d\ude00\n\/\u001f\u007f")", "\"\u00E9\u4E2D\U0001F600\\n/\\u001f\x7F\""},
      {R"("\"\\\b\f\r\t\u0000")", R"("\"\\\b\f\r\t\u0000")"},
      {"\"\u2028 \u00E9\"", "\"\u2028 \u00E9\""},
      {"\t\r\n 1 \t\r\n", "1"},
      {R"({"":""})", R"({"": ""})"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(round_trip(text), expected) << text;
}

TEST(PythonJson, WhatIsNoJson) {
  for (const std::string text : {"",
                                 " ",
                                 "{",
                                 "[",
                                 "[1",
                                 "[1,",
                                 "[1,]",
                                 "{\"a\"}",
                                 "{\"a\":}",
                                 "{\"a\":1,}",
                                 "{a:1}",
                                 "{'a':1}",
                                 "nul",
                                 "tru",
                                 "01",
                                 "1.",
                                 ".5",
                                 "-",
                                 "+1",
                                 "1e",
                                 "1 2",
                                 "--1",
                                 "0x10",
                                 "inf",
                                 "nan",
                                 "-NaN",
                                 "\"",
                                 "\"\\",
                                 "\"\\x\"",
                                 "\"\\u12\"",
                                 "\"\\u12g4\"",
                                 "\"\n\"",
                                 "\"\x01\"",
                                 "]",
                                 "}",
                                 ",",
                                 "\xEF\xBB\xBF"
                                 "1",
                                 "\"\xFF\"",
                                 "\"\xED\xA0\x80\"",
                                 "[1}",
                                 "{\"a\":1]",
                                 "not json",
                                 "\v1"}) {
    EXPECT_THROW(parse_python_json(text), JsonSyntaxError) << text;
  }
  EXPECT_THROW(parse_python_json(std::string_view("1\0", 2)), JsonSyntaxError);
  EXPECT_THROW(parse_python_json(std::string_view("\"a\0b\"", 5)), JsonSyntaxError);
}

TEST(PythonJson, WhatIsRefused) {
  for (const char* text :
       {R"("\ud800")", R"("\udc00")", R"("\ud83d\u0041")", R"("\ud83d\ud83d\ude00")", R"("\ud83dx")"}) {
    EXPECT_THROW(parse_python_json(text), JsonRefusedError) << text;
  }
  EXPECT_NO_THROW(parse_python_json(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')));
  EXPECT_THROW(parse_python_json(std::string(1000000, '[')), JsonRefusedError);
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  EXPECT_THROW(parse_python_json(objects), JsonRefusedError);
  EXPECT_EQ(round_trip(std::string(4300, '7')), std::string(4300, '7'));
  EXPECT_THROW(parse_python_json(std::string(4301, '7')), JsonRefusedError);
}

// Were duplicate keys found by walking the object, this would take minutes.
TEST(PythonJson, LargeObjects) {
  std::string text = "{";
  for (int i = 0; i < 100000; ++i)
    text += (i ? ", \"" : "\"") + std::to_string(i % 60000) + "\": " + std::to_string(i);
  const PythonJson json = parse_python_json(text + "}");
  ASSERT_EQ(json.object()->size(), 60000u);
  EXPECT_EQ(json.find("5")->number()->text, "60005");
}

TEST(PythonJson, Lookups) {
  const PythonJson json = parse_python_json(R"({"a": [1.0, 2], "s": "x", "b": true})");
  EXPECT_EQ(json.find("none"), nullptr);
  EXPECT_FALSE((*json.find("a")->array())[0].number()->is_integer);
  EXPECT_TRUE((*json.find("a")->array())[1].number()->is_integer);
  EXPECT_STREQ(json.find("s")->type_name(), "a string");
  EXPECT_EQ(json.find("s")->find("a"), nullptr);
  EXPECT_TRUE(*json.find("b")->boolean());
}

}  // namespace
}  // namespace tramontane
