#include "server/routes.h"

#include <gtest/gtest.h>

#include "server/completion_handler.h"

namespace tramontane {
namespace {

using nlohmann::json;

class RoutesTest : public testing::Test {
 protected:
  HttpResponse get(const std::string& path) {
    HttpRequest request;
    request.method = "GET";
    request.path = path;
    return routes.handle(request);
  }
  int refused(const std::string& method, const std::string& path,
              const std::string& type = "application/json") {
    const auto error = routes.refuse(method, path, type);
    return error ? error->status : 0;
  }
  ServerConfig config;
  ServerState state;
  Routes routes{config, state};
};

TEST_F(RoutesTest, RefusesBeforeTheBody) {
  EXPECT_EQ(refused("GET", "/nothing"), 404);
  EXPECT_EQ(refused("GET", "/v1/models/"), 404);
  EXPECT_EQ(refused("GET", "/metrics"), 404);
  EXPECT_EQ(refused("GET", "/v1/chat/completions"), 405);
  EXPECT_EQ(refused("POST", "/v1/models"), 405);
  EXPECT_EQ(refused("DELETE", "/health"), 405);
  EXPECT_EQ(refused("POST", "/v1/completions", "text/plain"), 415);
  EXPECT_EQ(refused("POST", "/v1/completions", "application/x-www-form-urlencoded"), 415);
  EXPECT_EQ(refused("POST", "/v1/completions", "Application/JSON ; charset=utf-8"), 0);
  EXPECT_EQ(refused("POST", "/v1/completions", ""), 0);
  EXPECT_EQ(refused("HEAD", "/health"), 0);
  EXPECT_EQ(refused("GET", "/v1/models/a/b"), 0);
}

TEST_F(RoutesTest, OnlyHealthNeedsNoKey) {
  EXPECT_FALSE(routes.needs_key("/health") || routes.needs_key("/health/live") ||
               routes.needs_key("/health/ready"));
  EXPECT_TRUE(routes.needs_key("/v1/models") && routes.needs_key("/tokenize") &&
              routes.needs_key("/nothing"));
}

TEST_F(RoutesTest, LoadingIsNotReady) {
  state.set_loading("reading weights", 0.25);
  EXPECT_EQ(get("/health/live").status, 200);
  const HttpResponse ready = get("/health/ready");
  EXPECT_EQ(ready.status, 503);
  const json body = json::parse(ready.body);
  EXPECT_EQ(body["status"], "loading");
  EXPECT_EQ(body["progress"], 0.25);
  EXPECT_EQ(body["loading"], "reading weights");
  EXPECT_EQ(body["error"]["type"], "server_error");
  EXPECT_EQ(get("/v1/models").status, 503);
}

TEST_F(RoutesTest, DrainingIsNotReady) {
  state.draining = true;
  EXPECT_EQ(get("/health/ready").status, 503);
  EXPECT_EQ(json::parse(get("/health").body)["status"], "draining");
  EXPECT_EQ(get("/health/live").status, 200);
  EXPECT_EQ(json::parse(get("/v1/models").body)["error"]["code"], "shutting_down");
}

TEST(HeaderList, IsSafeInAHeader) {
  EXPECT_EQ(header_list({"a", "b_c"}), "a, b_c");
  EXPECT_EQ(header_list({"x\r\nSet-Cookie: y"}), "x??Set-Cookie??y");
  EXPECT_LT(header_list(std::vector<std::string>(1000, std::string(1000, 'a'))).size(), 3000u);
}

}  // namespace
}  // namespace tramontane
