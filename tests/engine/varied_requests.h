// Requests of every kind and their answers, for tests that compare one way of running an engine with another.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "tests/engine/engine_support.h"

namespace tramontane {

using Answers = std::vector<std::vector<AnswerRecord>>;  // [requests][n]

inline Answers answer_together(Engine& engine, const std::vector<GenerateRequest>& requests) {
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerateRequest& request : requests) generations.push_back(engine.submit(request));
  Answers answers;
  for (size_t i = 0; i < requests.size(); ++i) answers.push_back(collect(*generations[i], requests[i].n));
  return answers;
}

// Every rule that looks at the tokens so far, lengths that end at and around block borders, n up to 3.
inline GenerateRequest make_varied_request(int32_t i) {
  GenerateRequest request =
      make_request(make_prompt(i % 3 == 0 ? 7 : 100 + i, 2 + 5 * (i % 9), 32768), 1 + i % 23);
  SamplingParams& sampling = request.sampling;
  sampling.ignore_eos = i % 5 != 0;
  sampling.seed = static_cast<uint64_t>(i) * 1000;
  if (i % 4 != 0) sampling.temperature = 0.8f;
  if (i % 4 == 2) sampling.top_p = 0.9f;
  if (i % 6 == 1) sampling.top_k = 20;
  if (i % 7 == 3) sampling.repetition_penalty = 1.5f;
  if (i % 7 == 4) sampling.frequency_penalty = sampling.presence_penalty = 1.0f;
  if (i % 8 == 5) sampling.logit_bias = {{40, 5.0f}, {9, -100.0f}, {40, 4.0f}};
  if (i % 9 == 8) request.n = 3;
  return request;
}

// Requests whose answers stop at ids that they would have come to: those of an engine without stop ids.
inline std::vector<GenerateRequest> make_varied_requests(Backend& backend, int32_t count) {
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < count; ++i) requests.push_back(make_varied_request(i));
  Engine engine(backend, tiny_checkpoint(), {.kv_cache_bytes = 4 << 20});
  const auto answers = answer_together(engine, requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> ids = answers[i][0].ids();
    if (i % 2 == 0 || ids.empty()) continue;
    SamplingParams& sampling = requests[i].sampling;
    sampling.stop_token_ids = {ids[ids.size() / 2], ids[ids.size() / 2], 17};
    if (i % 3 == 0)
      sampling.min_tokens = std::min(sampling.max_tokens, static_cast<int32_t>(ids.size() / 2) + 2);
  }
  return requests;
}

inline void expect_same(const Answers& got, const Answers& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    for (size_t k = 0; k < got[i].size(); ++k) {
      EXPECT_EQ(got[i][k].ids(), want[i][k].ids()) << "request " << i << ", answer " << k;
      EXPECT_EQ(got[i][k].finish, want[i][k].finish) << "request " << i << ", answer " << k;
      EXPECT_TRUE(got[i][k] == want[i][k]) << "request " << i << ", answer " << k;
    }
  }
}

}  // namespace tramontane
