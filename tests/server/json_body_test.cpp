#include "server/json_body.h"

#include <gtest/gtest.h>

#include "engine/request.h"

namespace tramontane {
namespace {

int status_of(const std::string& body, int depth = 8) {
  try {
    parse_json_body(body, depth);
    return 200;
  } catch (const RequestError& error) {
    EXPECT_LT(std::string(error.what()).size(), 400u);
    return error.status;
  }
}

TEST(JsonBody, RefusesWhatIsNoJsonObject) {
  for (const char* body : {"", " ", "{", "}", "[]", "1", "null", "\"a\"", "{\"a\": }", "{\"a\": 1,}",
                           "{\"a\": 1} x", "{'a': 1}", "{\"a\": 0x10}", "{\"a\": nan}"}) {
    EXPECT_EQ(status_of(body), 400) << body;
  }
}

TEST(JsonBody, RefusesInvalidUtf8AndNul) {
  EXPECT_EQ(status_of("{\"a\": \"\xff\"}"), 400);
  EXPECT_EQ(status_of("{\"a\": \"\xed\xa0\x80\"}"), 400);  // a surrogate
  EXPECT_EQ(status_of("{\"a\": \"\\ud800\"}"), 400);       // half a pair
  EXPECT_EQ(status_of(std::string("{\"a\": \"\0\"}", 10)), 400);
  EXPECT_EQ(status_of(std::string("{\"a\": 1}\0", 9)), 400);
  EXPECT_EQ(status_of("{\"a\": \"\xf0\x9f\x98\x80\"}"), 200);
}

TEST(JsonBody, LimitsNesting) {
  EXPECT_EQ(status_of("{\"a\": [[1]]}", 3), 200);
  EXPECT_EQ(status_of("{\"a\": [[[1]]]}", 3), 400);
  EXPECT_EQ(status_of("{\"a\": [{\"b\": {}}]}", 3), 400);
  EXPECT_EQ(status_of("{\"a\": " + std::string(1'000'000, '[')), 400);
}

TEST(JsonBody, NamesTheFieldOfANumberThatIsNone) {
  for (const char* number : {"NaN", "Infinity", "-Infinity", "1e999"}) {
    try {
      parse_json_body("{\"x\": 1, \"temperature\": " + std::string(number) + "}", 8);
      FAIL() << number;
    } catch (const RequestError& error) {
      EXPECT_EQ(error.param, "temperature") << number;
      EXPECT_EQ(error.code, "invalid_value");
    }
  }
}

TEST(JsonBody, ReplacesBytesThatAreNoUtf8) {
  EXPECT_EQ(to_body({{"a", "x\xff"}}), "{\"a\":\"x\xEF\xBF\xBD\"}");
}

}  // namespace
}  // namespace tramontane
