#include "server/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/json_body.h"
#include "server/request_fields.h"
#include "tests/server/fake_tokenizer.h"
#include "tests/support/case_name.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

ParameterLimits limits() {
  ParameterLimits limits;
  limits.vocab_size = 258;
  limits.max_model_len = 100;
  return limits;
}

// A chat request with these fields besides `messages`.
ParsedRequest parse_chat(const std::string& fields, const ParameterLimits& with = limits()) {
  const std::string messages = R"("messages": [{"role": "user", "content": "hi"}])";
  return parse_request(parse_json_body("{" + messages + (fields.empty() ? "" : ", ") + fields + "}", 64),
                       Endpoint::chat, with);
}
ParsedRequest parse_completion(const std::string& fields) {
  return parse_request(parse_json_body("{" + fields + "}", 64), Endpoint::completions, limits());
}

struct BadCase {
  const char* fields;
  const char* param;
};

class BadChatFields : public testing::TestWithParam<BadCase> {};

TEST_P(BadChatFields, AreRefusedByName) {
  try {
    parse_chat(GetParam().fields);
    FAIL() << "accepted: " << GetParam().fields;
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 400);
    EXPECT_EQ(error.type, "invalid_request_error");
    EXPECT_EQ(error.param, GetParam().param) << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadChatFields,
    testing::Values(
        BadCase{R"("temperature": -1)", "temperature"}, BadCase{R"("temperature": 2.01)", "temperature"},
        BadCase{R"("temperature": 1e308)", "temperature"}, BadCase{R"("temperature": 1e999)", "temperature"},
        BadCase{R"("temperature": NaN)", "temperature"},
        BadCase{R"("temperature": -Infinity)", "temperature"},
        BadCase{R"("temperature": "1")", "temperature"}, BadCase{R"("temperature": true)", "temperature"},
        BadCase{R"("temperature": [1])", "temperature"}, BadCase{R"("top_p": -0.1)", "top_p"},
        BadCase{R"("top_p": 1.1)", "top_p"}, BadCase{R"("top_p": 1e308)", "top_p"},
        BadCase{R"("top_k": -1)", "top_k"}, BadCase{R"("top_k": 1.5)", "top_k"},
        BadCase{R"("top_k": 9223372036854775808)", "top_k"}, BadCase{R"("min_p": 2)", "min_p"},
        BadCase{R"("min_p": -1)", "min_p"}, BadCase{R"("repetition_penalty": 0)", "repetition_penalty"},
        BadCase{R"("repetition_penalty": 1e308)", "repetition_penalty"},
        BadCase{R"("presence_penalty": 2.5)", "presence_penalty"},
        BadCase{R"("frequency_penalty": -2.5)", "frequency_penalty"}, BadCase{R"("n": 0)", "n"},
        BadCase{R"("n": -1)", "n"}, BadCase{R"("n": 17)", "n"}, BadCase{R"("n": 2.0)", "n"},
        BadCase{R"("n": "2")", "n"}, BadCase{R"("n": 9223372036854775808)", "n"},
        BadCase{R"("n": 1e30)", "n"}, BadCase{R"("max_tokens": 0)", "max_tokens"},
        BadCase{R"("max_tokens": -1)", "max_tokens"}, BadCase{R"("max_tokens": 2147483648)", "max_tokens"},
        BadCase{R"("max_tokens": 18446744073709551616)", "max_tokens"},
        BadCase{R"("max_completion_tokens": 0)", "max_completion_tokens"},
        BadCase{R"("max_tokens": 5, "max_completion_tokens": 5)", "max_tokens"},
        BadCase{R"("max_tokens": 5, "min_tokens": 6)", "min_tokens"},
        BadCase{R"("min_tokens": -1)", "min_tokens"}, BadCase{R"("seed": -1)", "seed"},
        BadCase{R"("seed": 9223372036854775808)", "seed"}, BadCase{R"("seed": 1.5)", "seed"},
        BadCase{R"("seed": 1e400)", "seed"}, BadCase{R"("stop": 5)", "stop"},
        BadCase{R"("stop": "")", "stop"}, BadCase{R"("stop": ["a", 1])", "stop[1]"},
        BadCase{R"("stop": ["a", ""])", "stop[1]"},
        BadCase{R"("stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])",
                "stop"},
        BadCase{R"("stop_token_ids": [1, -1])", "stop_token_ids[1]"},
        BadCase{R"("stop_token_ids": [258])", "stop_token_ids[0]"},
        BadCase{R"("stop_token_ids": 3)", "stop_token_ids"},
        BadCase{R"("stop_token_ids": [1.0])", "stop_token_ids[0]"},
        BadCase{R"("logit_bias": {"258": 1})", "logit_bias"},
        BadCase{R"("logit_bias": {"x": 1})", "logit_bias"}, BadCase{R"("logit_bias": {"": 1})", "logit_bias"},
        BadCase{R"("logit_bias": {"-1": 1})", "logit_bias"},
        BadCase{R"("logit_bias": {"5": 101})", "logit_bias.5"},
        BadCase{R"("logit_bias": {"5": "1"})", "logit_bias.5"}, BadCase{R"("logit_bias": [1])", "logit_bias"},
        BadCase{R"("logprobs": 1)", "logprobs"}, BadCase{R"("top_logprobs": 2)", "top_logprobs"},
        BadCase{R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
        BadCase{R"("logprobs": true, "top_logprobs": -1)", "top_logprobs"},
        BadCase{R"("stream": "yes")", "stream"}, BadCase{R"("stream": 1)", "stream"},
        BadCase{R"("stream_options": {"include_usage": true})", "stream_options"},
        BadCase{R"("stream": true, "stream_options": {"include_usage": 1})", "stream_options.include_usage"},
        BadCase{R"("stream": true, "stream_options": 1)", "stream_options"},
        BadCase{R"("timeout": -1)", "timeout"}, BadCase{R"("timeout": 1e308)", "timeout"},
        BadCase{R"("priority": 2147483648)", "priority"}, BadCase{R"("cache_salt": "")", "cache_salt"},
        BadCase{R"("cache_salt": 1)", "cache_salt"}, BadCase{R"("ignore_eos": "no")", "ignore_eos"},
        BadCase{R"("model": 7)", "model"}, BadCase{R"("messages": "hi")", "messages"},
        BadCase{R"("messages": null)", "messages"},
        BadCase{R"("tools": [{"type": "function", "function": {"name": "f"}}])", "tools"},
        BadCase{R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto")",
                "tools"},
        BadCase{R"("tool_choice": "required")", "tool_choice"},
        BadCase{R"("tool_choice": {"type": "function", "function": {"name": "f"}})", "tool_choice"},
        BadCase{R"("tool_choice": "maybe")", "tool_choice"}, BadCase{R"("tool_choice": 3)", "tool_choice"},
        BadCase{R"("response_format": {"type": "json_object"})", "response_format"},
        BadCase{R"("response_format": {"type": "json_schema", "json_schema": {}})", "response_format"},
        BadCase{R"("response_format": {"type": "xml"})", "response_format.type"},
        BadCase{R"("response_format": {})", "response_format.type"},
        BadCase{R"("structured_outputs": {"choice": ["a"]})", "structured_outputs"},
        BadCase{R"("functions": [])", "functions"}),
    [](const auto& test) { return case_name(test.index, test.param.fields); });

TEST(OpenAiRequest, TakesEveryParameter) {
  const ParsedRequest parsed = parse_chat(
      R"("model": "m", "max_completion_tokens": 7, "min_tokens": 2, "temperature": 0, "top_p": 0.5, "top_k": 4, "min_p": 0.1,
    "repetition_penalty": 1.5, "presence_penalty": -2, "frequency_penalty": 2, "logit_bias": {"65": -100, "66": 1.5}, "seed": 9223372036854775807, "n": 16, "stop": ["a", "bc"],
    "stop_token_ids": [0, 257], "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 20, "return_token_ids": true,
    "priority": -3, "timeout": 1.5, "cache_salt": "s", "user": "u", "tool_choice": "none", "response_format": {"type": "text"}, "continue_final_message": true)");
  EXPECT_EQ(parsed.model, "m");
  EXPECT_EQ(parsed.max_tokens, 7);
  EXPECT_EQ(parsed.sampling.min_tokens, 2);
  EXPECT_EQ(parsed.sampling.temperature, 0.0f);
  EXPECT_EQ(parsed.sampling.top_p, 0.5f);
  EXPECT_EQ(parsed.sampling.top_k, 4);
  EXPECT_EQ(parsed.sampling.min_p, 0.1f);
  EXPECT_EQ(parsed.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(parsed.sampling.presence_penalty, -2.0f);
  EXPECT_EQ(parsed.sampling.frequency_penalty, 2.0f);
  EXPECT_THAT(parsed.sampling.logit_bias, ElementsAre(std::pair(65, -100.0f), std::pair(66, 1.5f)));
  EXPECT_EQ(parsed.seed, 9223372036854775807u);
  EXPECT_EQ(parsed.n, 16);
  EXPECT_THAT(parsed.output.stop, ElementsAre("a", "bc"));
  EXPECT_THAT(parsed.sampling.stop_token_ids, ElementsAre(0, 257));
  EXPECT_TRUE(parsed.sampling.ignore_eos && parsed.output.stream && parsed.output.include_usage &&
              parsed.output.return_token_ids && parsed.continues_message);
  EXPECT_EQ(parsed.sampling.logprobs, 20);
  EXPECT_EQ(parsed.priority, -3);
  EXPECT_EQ(parsed.timeout, 1.5);
  EXPECT_EQ(parsed.cache_salt, "s");
  EXPECT_THAT(parsed.ignored, ElementsAre());
}

TEST(OpenAiRequest, DefaultsAreOpenAisUnlessTheModelSaysOtherwise) {
  EXPECT_EQ(parse_chat("").sampling.temperature, 1.0f);
  EXPECT_EQ(parse_chat("").sampling.top_p, 1.0f);
  EXPECT_EQ(parse_chat("").sampling.logprobs, -1);
  ParameterLimits with = limits();
  with.defaults.temperature = 0.3f;
  with.defaults.top_k = 20;
  EXPECT_EQ(parse_chat("", with).sampling.temperature, 0.3f);
  EXPECT_EQ(parse_chat("", with).sampling.top_k, 20);
  EXPECT_EQ(parse_chat(R"("temperature": 0.9)", with).sampling.temperature, 0.9f);
  EXPECT_EQ(parse_chat(R"("temperature": null)", with).sampling.temperature, 0.3f);
}

TEST(OpenAiRequest, TopPOfZeroKeepsTheLikeliestToken) {
  EXPECT_GT(parse_chat(R"("top_p": 0)").sampling.top_p, 0.0f);
}

TEST(OpenAiRequest, NamesIgnoredFieldsAndRefusesThemWhenStrict) {
  const std::string fields =
      R"("store": true, "best": 1, "metadata": null, "stream": true, "stream_options": {"include_obfuscation": false})";
  EXPECT_THAT(parse_chat(fields).ignored,
              testing::UnorderedElementsAre("store", "best", "stream_options.include_obfuscation"));
  ParameterLimits strict = limits();
  strict.strict = true;
  try {
    parse_chat(R"("best": 1)", strict);
    FAIL();
  } catch (const RequestError& error) {
    EXPECT_EQ(error.code, "unsupported_parameter");
    EXPECT_EQ(error.param, "best");
  }
  EXPECT_NO_THROW(parse_chat(R"("user": "u", "temperature": 1)", strict));
}

TEST(OpenAiRequest, ToolsAreTakenWithToolChoiceNone) {
  EXPECT_NO_THROW(
      parse_chat(R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none")"));
  EXPECT_NO_THROW(parse_chat(R"("tools": [], "tool_choice": "auto")"));
}

TEST(OpenAiRequest, EachFieldBelongsToItsEndpoint) {
  EXPECT_THAT(parse_chat(R"("echo": true)").ignored, ElementsAre("echo"));
  EXPECT_THAT(parse_completion(R"("prompt": "a", "messages": [])").ignored, ElementsAre("messages"));
  EXPECT_EQ(parse_completion(R"("prompt": "a", "logprobs": 3)").sampling.logprobs, 3);
  EXPECT_THROW(parse_completion(R"("prompt": "a", "logprobs": true)"), RequestError);
  EXPECT_THROW(parse_completion(R"("max_tokens": 3)"), RequestError);
}

std::vector<std::vector<int32_t>> prompts(const std::string& value) {
  return encode_prompts(json::parse(value), FakeTokenizer(), limits());
}

TEST(OpenAiRequest, PromptsInAllForms) {
  EXPECT_THAT(prompts(R"("AB")"), ElementsAre(ElementsAre(256, 65, 66)));
  EXPECT_THAT(prompts(R"("")"), ElementsAre(ElementsAre(256)));
  EXPECT_THAT(prompts(R"(["A", "B"])"), ElementsAre(ElementsAre(256, 65), ElementsAre(256, 66)));
  EXPECT_THAT(prompts("[1, 2]"), ElementsAre(ElementsAre(1, 2)));
  EXPECT_THAT(prompts("[[1, 2], [3]]"), ElementsAre(ElementsAre(1, 2), ElementsAre(3)));
}

TEST(OpenAiRequest, AnEmptyPromptStartsFromBosEvenWhereTextsDoNot) {
  FakeTokenizer bare;
  bare.with_bos = false;
  const auto ids = [&](const char* value) {
    return encode_prompts(json::parse(value), bare, limits()).at(0);
  };
  EXPECT_THAT(ids(R"("A")"), ElementsAre(65));
  EXPECT_THAT(ids(R"("")"), ElementsAre(256));
}

TEST(OpenAiRequest, BadPromptsAreRefused) {
  for (const char* value : {"5", "{}", "[]", "[[]]", "[[1], [258]]", "[1, \"a\"]", "[\"a\", 1]", "[1.0]",
                            "[-1]", "[null]", "[[1], \"a\"]", "true"}) {
    EXPECT_THROW(prompts(value), RequestError) << value;
  }
  ParameterLimits two = limits();
  two.max_prompts = 2;
  EXPECT_THROW(encode_prompts(json::parse(R"(["a", "b", "c"])"), FakeTokenizer(), two), RequestError);
}

TEST(OpenAiRequest, MaxTokensDefaultsToTheRestOfTheContext) {
  const auto made = [](const std::string& fields, size_t prompt) {
    return generate_requests(parse_chat(fields), {std::vector<int32_t>(prompt, 65)}, limits(), "id", "")
        .at(0);
  };
  EXPECT_EQ(made("", 90).sampling.max_tokens, 10);
  EXPECT_EQ(made(R"("max_tokens": 3)", 90).sampling.max_tokens, 3);
  try {
    made("", 100);
    FAIL();
  } catch (const RequestError& error) {
    EXPECT_EQ(error.code, "context_length_exceeded");
    EXPECT_THAT(error.what(), HasSubstr("100"));
  }
  EXPECT_THROW(made(R"("min_tokens": 11)", 90), RequestError);
}

TEST(OpenAiRequest, EchoAsksForThePromptsLogprobs) {
  const auto made = [](const std::string& fields) {
    return generate_requests(parse_completion(fields), {{65, 66}}, limits(), "id", "").at(0).sampling;
  };
  EXPECT_EQ(made(R"("prompt": "x", "echo": true, "logprobs": 2)").prompt_logprobs, 2);
  EXPECT_EQ(made(R"("prompt": "x", "logprobs": 2)").prompt_logprobs, -1);
  EXPECT_EQ(made(R"("prompt": "x", "echo": true, "max_tokens": 0)").max_tokens, 0);
  EXPECT_EQ(made(R"("prompt": "x", "echo": true, "max_tokens": 0)").prompt_logprobs, 0);
  EXPECT_THROW(made(R"("prompt": "x", "max_tokens": 0)"), RequestError);
}

TEST(OpenAiRequest, KeysAndSaltsPartThePrefixCache) {
  const auto salt = [](const std::string& fields, const std::string& key) {
    return generate_requests(parse_chat(fields), {{65}}, limits(), "id", key).at(0).cache_salt;
  };
  const std::string a(32, 'a'), b(32, 'b');
  EXPECT_EQ(salt("", ""), "");
  EXPECT_NE(salt("", a), salt("", b));
  EXPECT_NE(salt(R"("cache_salt": "x")", a), salt("", a));
  EXPECT_EQ(salt(R"("cache_salt": "x")", a), salt(R"("cache_salt": "x")", a));
}

TEST(OpenAiRequest, AFreshSeedEachTimeUnlessGiven) {
  const auto seed = [](const std::string& fields) {
    return generate_requests(parse_chat(fields), {{65}}, limits(), "id", "").at(0).sampling.seed;
  };
  EXPECT_EQ(seed(R"("seed": 5)"), 5u);
  EXPECT_NE(seed(""), seed(""));
}

TEST(OpenAiRequest, TheServersTimeoutWinsWhenShorter) {
  ParameterLimits with = limits();
  with.request_timeout = 10;
  EXPECT_EQ(parse_chat("", with).timeout, 10);
  EXPECT_EQ(parse_chat(R"("timeout": 5)", with).timeout, 5);
  EXPECT_EQ(parse_chat(R"("timeout": 50)", with).timeout, 10);
}

TEST(RequestFields, NoNameTwiceForOneEndpoint) {
  for (const RequestField& field : request_fields()) {
    for (unsigned bit = 1; bit <= 16; bit *= 2) {
      if ((field.endpoints & bit) == 0) continue;
      EXPECT_EQ(find_field(field.name, static_cast<Endpoint>(bit)), &field) << field.name;
    }
  }
}

}  // namespace
}  // namespace tramontane
