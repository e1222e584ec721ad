#include "tests/engine/engine_support.h"

#include <gtest/gtest.h>

#include "engine/backend/philox.h"
#include "tests/support/golden.h"

namespace tramontane {

const Checkpoint& tiny_checkpoint() {
  static const auto checkpoint = Checkpoint::open(find_golden("tiny-v0.3-bf16").value());
  return *checkpoint;
}

std::vector<int32_t> AnswerRecord::ids() const {
  std::vector<int32_t> result;
  for (const TokenRecord& record : tokens) result.push_back(record.token);
  return result;
}

std::vector<AnswerRecord> collect(Generation& generation, int32_t n) {
  std::vector<AnswerRecord> answers(static_cast<size_t>(n));
  for (int32_t unfinished = n; unfinished > 0;) {
    const auto event = generation.events.pop_for(std::chrono::minutes(1));
    if (!event) {
      ADD_FAILURE() << "no event for a minute";
      return answers;
    }
    AnswerRecord& answer = answers.at(static_cast<size_t>(event->index));
    EXPECT_EQ(answer.finish, FinishReason::none) << "an event after the finishing one";
    if (event->kind == TokenEvent::Kind::finished) {
      answer.finish = event->finish;
      ++answer.finishing_events;
      --unfinished;
      continue;
    }
    TokenRecord record{event->token, event->logprob, {}};
    for (int i = 0; i < event->n_top; ++i)
      record.top.emplace_back(event->top[i].token, event->top[i].logprob);
    (event->kind == TokenEvent::Kind::token ? answer.tokens : answer.prompt).push_back(std::move(record));
  }
  return answers;
}

std::vector<int32_t> make_prompt(uint64_t seed, int32_t length, int32_t vocab_size) {
  std::vector<int32_t> prompt = {1};
  for (int32_t i = 1; i < length; ++i) {
    prompt.push_back(static_cast<int32_t>(3 + random_bits(seed, static_cast<uint64_t>(i)) %
                                                  static_cast<uint64_t>(vocab_size - 3)));
  }
  return prompt;
}

GenerateRequest make_request(std::vector<int32_t> prompt, int32_t max_tokens) {
  GenerateRequest request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = 0.0f;
  return request;
}

}  // namespace tramontane
