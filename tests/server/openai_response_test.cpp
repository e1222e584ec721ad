#include "server/openai_response.h"

#include <gtest/gtest.h>

#include <cmath>

#include "server/json_body.h"
#include "tests/server/fake_tokenizer.h"

namespace tramontane {
namespace {

ServedModel model() {
  ServedModel model;
  model.id = "m";
  model.system_fingerprint = "fp_x";
  model.tokenizer = std::make_shared<FakeTokenizer>();
  return model;
}

AnswerPiece piece(const std::string& text) {
  AnswerPiece piece;
  piece.text = text;
  int64_t offset = 0;
  for (const char byte : text) {
    const int32_t id = static_cast<unsigned char>(byte);
    piece.tokens.push_back({id, -0.25f, {{id, -0.25f}, {'z', -2.0f}}, offset++});
  }
  return piece;
}

TEST(OpenAiResponse, ErrorsHaveOpenAisForm) {
  EXPECT_EQ(to_body(error_object(RequestError(400, "invalid_request_error", "", "bad \"x\"", ""))),
            R"({"error":{"message":"bad \"x\"","type":"invalid_request_error","param":null,"code":null}})");
  EXPECT_EQ(to_body(error_object(RequestError(400, "t", "p", "m", "c"))),
            R"({"error":{"message":"m","type":"t","param":"p","code":"c"}})");
}

TEST(OpenAiResponse, AWholeChat) {
  const ServedModel served = model();
  const ResponseBuilder builder(Endpoint::chat, {}, served, 1, {{1, 2}});
  const OrderedJson answer = builder.whole({{0, piece("hi"), FinishReason::length}}, {2, 2, 1});
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("chatcmpl-"));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["system_fingerprint"], "fp_x");
  EXPECT_EQ(
      answer["choices"].dump(),
      R"([{"index":0,"message":{"role":"assistant","content":"hi","refusal":null},"logprobs":null,"finish_reason":"length"}])");
  EXPECT_EQ(
      answer["usage"].dump(),
      R"({"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":1}})");
}

TEST(OpenAiResponse, ChatLogprobs) {
  const ServedModel served = model();
  OutputOptions output;
  output.logprobs = true;
  const ResponseBuilder builder(Endpoint::chat, output, served, 1, {{1}});
  AnswerPiece one = piece("h");
  one.tokens.push_back({257, -INFINITY, {}, 1});
  one.tokens.push_back({0xE2, -1.0f, {}, 1});
  const OrderedJson logprobs = builder.whole({{0, one, FinishReason::stop}}, {})["choices"][0]["logprobs"];
  EXPECT_EQ(
      logprobs["content"][0].dump(),
      R"({"token":"h","logprob":-0.25,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.25,"bytes":[104]},{"token":"z","logprob":-2.0,"bytes":[122]}]})");
  EXPECT_EQ(logprobs["content"][1].dump(),
            R"({"token":"</s>","logprob":-9999.0,"bytes":null,"top_logprobs":[]})");
  EXPECT_EQ(logprobs["content"][2]["token"], "bytes:\\xe2");
}

TEST(OpenAiResponse, CompletionLogprobsWithAnEchoedPrompt) {
  const ServedModel served = model();
  OutputOptions output;
  output.logprobs = true;
  const ResponseBuilder builder(Endpoint::completions, output, served, 1, {{1}});
  AnswerPiece echoed = piece("ab");
  echoed.tokens[0].logprob.reset();
  echoed.tokens[0].top.clear();
  echoed.tokens[1].top = {{'z', -0.1f}};  // the token itself is not among the likeliest
  const OrderedJson choice = builder.whole({{0, echoed, FinishReason::stop}}, {})["choices"][0];
  EXPECT_EQ(choice["text"], "ab");
  EXPECT_EQ(choice["logprobs"]["tokens"].dump(), R"(["a","b"])");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"].dump(), "[null,-0.25]");
  EXPECT_TRUE(choice["logprobs"]["top_logprobs"][0].is_null());
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1].size(), 2u);
  EXPECT_EQ(choice["logprobs"]["top_logprobs"][1]["b"], -0.25);
  EXPECT_EQ(choice["logprobs"]["text_offset"].dump(), "[0,1]");
}

TEST(OpenAiResponse, ChatChunks) {
  const ServedModel served = model();
  OutputOptions output;
  output.include_usage = true;
  const ResponseBuilder builder(Endpoint::chat, output, served, 2, {{1}});
  const OrderedJson role = builder.role_chunk(1);
  EXPECT_EQ(role["object"], "chat.completion.chunk");
  EXPECT_EQ(
      role["choices"].dump(),
      R"([{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}])");
  EXPECT_TRUE(role["usage"].is_null());
  EXPECT_EQ(builder.piece_chunk(0, piece("x"), true)["choices"][0]["delta"].dump(), R"({"content":"x"})");
  EXPECT_EQ(builder.finish_chunk(0, FinishReason::stop)["choices"].dump(),
            R"([{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}])");
  const OrderedJson usage = builder.usage_chunk({3, 4, 0});
  EXPECT_EQ(usage["choices"].dump(), "[]");
  EXPECT_EQ(usage["usage"]["total_tokens"], 7);
  EXPECT_EQ(usage["id"], role["id"]);
  EXPECT_FALSE(ResponseBuilder(Endpoint::chat, {}, served, 1, {{1}}).role_chunk(0).contains("usage"));
}

TEST(OpenAiResponse, TokenIds) {
  const ServedModel served = model();
  OutputOptions output;
  output.return_token_ids = true;
  const ResponseBuilder chat(Endpoint::chat, output, served, 1, {{1, 2}});
  EXPECT_EQ(chat.whole({{0, piece("ab"), FinishReason::stop}}, {})["prompt_token_ids"].dump(), "[1,2]");
  EXPECT_EQ(chat.whole({{0, piece("ab"), FinishReason::stop}}, {})["choices"][0]["token_ids"].dump(),
            "[97,98]");
  const ResponseBuilder completions(Endpoint::completions, output, served, 2, {{1}, {2}});
  EXPECT_EQ(completions.piece_chunk(3, piece("a"), true)["choices"][0]["prompt_token_ids"].dump(), "[2]");
  EXPECT_FALSE(completions.piece_chunk(3, piece("a"), false)["choices"][0].contains("prompt_token_ids"));
}

TEST(OpenAiResponse, TokensThatArePartsOfCharactersAreSpelledInHex) {
  const FakeTokenizer tokenizer;
  EXPECT_EQ(token_text(tokenizer, 'a'), "a");
  EXPECT_EQ(token_text(tokenizer, 0xC3), "bytes:\\xc3");
  EXPECT_EQ(token_text(tokenizer, 256), "<s>");
}

}  // namespace
}  // namespace tramontane
