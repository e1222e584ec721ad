#include "server/request_record.h"

#include <gtest/gtest.h>

#include "server/request_id.h"

namespace tramontane {
namespace {

TEST(RequestRecord, OneLineWhateverThePath) {
  RequestRecord record;
  record.method = "GET";
  record.path = "/a\nb\x1b[31m" + std::string(5000, 'x');
  record.status = 404;
  record.id = "r1";
  const std::string text = record.to_text();
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_LT(text.size(), 300u);
  EXPECT_NE(text.find("GET /a?b?[31m"), std::string::npos);
  EXPECT_NE(record.to_json().find("\"status\":404"), std::string::npos);
}

TEST(RequestId, TheClientsOwnWhenSafe) {
  EXPECT_EQ(request_id("abc-123"), "abc-123");
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\r\nb"),
                                 std::string("\x80"), std::string(129, 'a')}) {
    EXPECT_NE(request_id(bad), bad);
    EXPECT_TRUE(request_id(bad).starts_with("req-"));
  }
  EXPECT_NE(request_id(""), request_id(""));
}

}  // namespace
}  // namespace tramontane
