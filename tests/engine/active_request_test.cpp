#include "engine/active_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tramontane {
namespace {

using testing::UnorderedElementsAre;

ModelConfig config() {
  ModelConfig config;
  config.vocab_size = 10;
  config.eos_ids = {2, -1, 10};  // a tokenizer may name ids that the model has not
  return config;
}

GenerateRequest request(int32_t n) {
  GenerateRequest request;
  request.prompt = {1, 5, 6};
  request.n = n;
  request.priority = 4;
  request.sampling.max_tokens = 40;
  request.sampling.stop_token_ids = {7, 3};
  return request;
}

TEST(ActiveRequest, EndsOnIdsOfTheModelAndOfTheRequest) {
  EXPECT_THAT(make_active_request(request(1), config())->end_ids, UnorderedElementsAre(2, 3, 7));
  GenerateRequest on = request(1);
  on.sampling.ignore_eos = true;
  EXPECT_THAT(make_active_request(on, config())->end_ids, UnorderedElementsAre(3, 7));
}

// Siblings compute their prompt once because they know of each other; one of them scores it.
TEST(ActiveRequest, SiblingsShareAGroup) {
  GenerateRequest scored = request(3);
  scored.sampling.prompt_logprobs = 0;
  const auto three = make_active_request(scored, config());
  ASSERT_EQ(three->answers.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const ActiveSequence& answer = three->answers[i];
    EXPECT_EQ(answer.group, &three->group);
    EXPECT_EQ(answer.owner, three.get());
    EXPECT_EQ(answer.index, static_cast<int32_t>(i));
    EXPECT_EQ(answer.priority, 4);
    EXPECT_EQ(answer.scores_prompt, i == 0);
  }
  EXPECT_EQ(make_active_request(request(1), config())->answers[0].group, nullptr);
}

// The engine thread allocates nothing for a request: what it can become fits from the start.
TEST(ActiveRequest, HasRoomForAllThatItCanBecome) {
  GenerateRequest scored = request(2);
  scored.sampling.logprobs = 5;
  scored.sampling.prompt_logprobs = 4;
  const auto active = make_active_request(scored, config());
  for (const ActiveSequence& answer : active->answers) {
    EXPECT_GE(answer.tokens.capacity(), 43u);
    EXPECT_GE(answer.blocks.capacity(), 3u);
  }
  EXPECT_GE(active->generation->top_storage.capacity(), 2u * 4 + 2 * 40 * 5);
}

}  // namespace
}  // namespace tramontane
