#include "server/answer.h"

#include <gtest/gtest.h>

#include "engine/request.h"
#include "tests/server/fake_tokenizer.h"

namespace tramontane {
namespace {

ParsedRequest echoing(int32_t n) {
  ParsedRequest parsed;
  parsed.endpoint = Endpoint::completions;
  parsed.n = n;
  parsed.output.echo = parsed.output.logprobs = true;
  return parsed;
}

const std::vector<std::vector<int32_t>> kPrompts = {{256, 'a'}, {256, 'b'}};

// They come once for each prompt; every choice of it echoes them.
TEST(Answer, PromptLogprobsReachAllChoicesOfTheirPrompt) {
  const FakeTokenizer tokenizer;
  Answer answer(tokenizer, echoing(2), kPrompts);
  TokenEvent event = token_event('b', 0, -3.0f);
  event.kind = TokenEvent::Kind::prompt_logprob;
  EXPECT_EQ(answer.accept(1, event), 2);
  EXPECT_FALSE(answer.ready(2)) << "nothing goes out before the prompt's are complete";
  const std::vector<Choice> choices = answer.take_choices();
  ASSERT_EQ(choices.size(), 4u);
  EXPECT_FALSE(choices[0].answer.tokens[1].logprob.has_value());
  EXPECT_EQ(choices[2].answer.tokens[1].logprob, -3.0f);
  EXPECT_EQ(choices[3].answer.tokens[1].logprob, -3.0f);
  EXPECT_EQ(choices[3].answer.text, "b");
}

int status_of(FinishReason finish, int n_tokens) {
  const FakeTokenizer tokenizer;
  Answer answer(tokenizer, {}, std::span(kPrompts).first(1));
  for (int i = 0; i < n_tokens; ++i) answer.accept(0, token_event('x'));
  answer.accept(0, finished_event(finish));
  try {
    answer.check(0);
    return 200;
  } catch (const RequestError& error) {
    EXPECT_EQ(error.retry_after_s > 0, error.status == 429);
    return error.status;
  }
}

TEST(Answer, WhatTheEngineGaveUpOnIsAnError) {
  EXPECT_EQ(status_of(FinishReason::stop, 1), 200);
  EXPECT_EQ(status_of(FinishReason::length, 1), 200);
  EXPECT_EQ(status_of(FinishReason::cancelled, 1), 503);
  EXPECT_EQ(status_of(FinishReason::error, 1), 500);
  EXPECT_EQ(status_of(FinishReason::queue_timeout, 0), 429);
  EXPECT_EQ(status_of(FinishReason::deadline, 0), 408);
  EXPECT_EQ(status_of(FinishReason::deadline, 1), 200) << "cut short, but an answer";
}

}  // namespace
}  // namespace tramontane
