#include "engine/request_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace tramontane {
namespace {

GenerateRequest good_request() {
  GenerateRequest request;
  request.prompt = {1, 2, 3};
  request.sampling.max_tokens = 10;
  return request;
}

constexpr RequestLimits kLimits{.vocab_size = 100, .max_model_len = 20};

struct BadCase {
  const char* param;
  std::function<void(GenerateRequest&)> spoil;
};

TEST(RequestChecks, NameTheParameterThatIsOutOfRange) {
  const float nan = std::nanf(""), infinity = std::numeric_limits<float>::infinity();
  const std::vector<BadCase> cases = {
      {"prompt", [](auto& r) { r.prompt.clear(); }},
      {"prompt", [](auto& r) { r.prompt[1] = 100; }},
      {"prompt", [](auto& r) { r.prompt[1] = -1; }},
      {"n", [](auto& r) { r.n = 0; }},
      {"n", [](auto& r) { r.n = 1 << 30; }},
      {"temperature", [](auto& r) { r.sampling.temperature = -0.1f; }},
      {"temperature", [=](auto& r) { r.sampling.temperature = nan; }},
      {"temperature", [=](auto& r) { r.sampling.temperature = infinity; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 0.0f; }},
      {"top_p", [=](auto& r) { r.sampling.top_p = nan; }},
      {"top_p", [](auto& r) { r.sampling.top_p = 1.1f; }},
      {"top_k", [](auto& r) { r.sampling.top_k = -1; }},
      {"min_p", [](auto& r) { r.sampling.min_p = 1.5f; }},
      {"repetition_penalty", [](auto& r) { r.sampling.repetition_penalty = 0.0f; }},
      {"presence_penalty", [](auto& r) { r.sampling.presence_penalty = 2.5f; }},
      {"frequency_penalty", [](auto& r) { r.sampling.frequency_penalty = -3.0f; }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{100, 1.0f}};
       }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias = {{1, 101.0f}};
       }},
      {"max_tokens", [](auto& r) { r.sampling.max_tokens = 0; }},
      {"min_tokens", [](auto& r) { r.sampling.min_tokens = 11; }},
      {"stop_token_ids", [](auto& r) { r.sampling.stop_token_ids = {-1}; }},
      {"stop_token_ids", [](auto& r) { r.sampling.stop_token_ids.assign(5000, 1); }},
      {"logit_bias",
       [](auto& r) {
         r.sampling.logit_bias.assign(1025, {1, 1.0f});
       }},
      {"logprobs", [](auto& r) { r.sampling.logprobs = 21; }},
      {"prompt_logprobs", [](auto& r) { r.sampling.prompt_logprobs = -2; }},
  };
  for (const BadCase& bad : cases) {
    GenerateRequest request = good_request();
    bad.spoil(request);
    try {
      check_request(request, kLimits);
      ADD_FAILURE() << bad.param << " was accepted";
    } catch (const RequestError& error) {
      EXPECT_EQ(error.param, bad.param) << error.what();
      EXPECT_EQ(error.status, 400);
      EXPECT_EQ(error.type, "invalid_request_error");
    }
  }
}

TEST(RequestChecks, AcceptTheBordersOfEveryRange) {
  GenerateRequest request = good_request();
  request.prompt = {0, 99};
  request.sampling = {.temperature = 0,
                      .top_p = 1,
                      .top_k = INT32_MAX,
                      .min_p = 1,
                      .repetition_penalty = 0.01f,
                      .presence_penalty = -2,
                      .frequency_penalty = 2,
                      .logit_bias = {{0, -100.0f}, {99, 100.0f}},
                      .seed = ~uint64_t{0},
                      .max_tokens = 18,
                      .min_tokens = 18,
                      .ignore_eos = true,
                      .stop_token_ids = {0, 99},
                      .logprobs = 20,
                      .prompt_logprobs = 0};
  EXPECT_NO_THROW(check_request(request, kLimits));
  request.sampling.max_tokens = request.sampling.min_tokens = 0;  // the prompt is only scored
  EXPECT_NO_THROW(check_request(request, kLimits));
}

TEST(RequestChecks, ContextLengthNamesBothNumbers) {
  GenerateRequest request = good_request();
  request.sampling.max_tokens = 18;
  try {
    check_request(request, kLimits);
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.code, "context_length_exceeded");
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::HasSubstr("maximum context length is 20 tokens"),
                               testing::HasSubstr("21 tokens"), testing::HasSubstr("3 in the prompt"),
                               testing::HasSubstr("18 in the completion")));
  }
  request.sampling.max_tokens = INT32_MAX;  // no overflow
  EXPECT_THROW(check_request(request, kLimits), RequestError);
}

}  // namespace
}  // namespace tramontane
