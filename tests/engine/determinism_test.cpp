// Decision 5: the same request gives the same tokens and the same logprobs, bit for bit, at any load. Each
// backend and kernel set answers 33 requests alone, and then again under every circumstance that
// must not matter.
#include <gtest/gtest.h>

#include "tests/engine/engine_support.h"
#include "tests/support/backend_cases.h"

namespace tramontane {
namespace {

// On an emulator a third of them.
int32_t n_requests(const BackendCase& backend) {
  return backend.is_slow ? 11 : 33;
}
constexpr uint64_t kPlenty = 4 << 20;

// Lengths 3..99, half of them sharing a beginning; greedy and sampled, with logprobs, some with penalties and
// prompt scores.
std::vector<GenerateRequest> make_requests(int32_t count) {
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < count; ++i) {
    GenerateRequest request = make_request(make_prompt(i % 2 == 0 ? 7 : 100 + i, 3 + 3 * i, 32768), 12);
    request.prompt.push_back(3 + i);
    request.sampling.ignore_eos = true;
    request.sampling.seed = static_cast<uint64_t>(i) * 1000;
    request.sampling.logprobs = 4;
    if (i % 4 != 0) {
      request.sampling.temperature = 0.9f;
      request.sampling.top_p = 0.95f;
      request.sampling.top_k = i % 4 == 1 ? 40 : 0;
    }
    if (i % 8 == 3) request.sampling.repetition_penalty = 1.3f;
    if (i % 16 == 5) request.sampling.prompt_logprobs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

// Short prompts and long answers: each grows by 4 or 5 blocks while it runs.
std::vector<GenerateRequest> make_growing_requests() {
  std::vector<GenerateRequest> requests;
  for (uint64_t i = 0; i < 5; ++i) {
    GenerateRequest request = make_request(make_prompt(200 + i, 5 + 4 * static_cast<int32_t>(i), 32768), 70);
    request.sampling.ignore_eos = true;
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = i;
    request.sampling.logprobs = 2;
    if (i == 1) request.sampling.prompt_logprobs = 2;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::vector<AnswerRecord> answer_one_by_one(Engine& engine, const std::vector<GenerateRequest>& requests) {
  std::vector<AnswerRecord> answers;
  for (const GenerateRequest& request : requests) answers.push_back(collect(*engine.submit(request))[0]);
  return answers;
}

std::vector<AnswerRecord> answer_together(Engine& engine, const std::vector<GenerateRequest>& requests) {
  std::vector<std::shared_ptr<Generation>> generations;
  for (const GenerateRequest& request : requests) generations.push_back(engine.submit(request));
  std::vector<AnswerRecord> answers;
  for (const auto& generation : generations) answers.push_back(collect(*generation)[0]);
  return answers;
}

void expect_same(const std::vector<AnswerRecord>& answers, const std::vector<AnswerRecord>& alone) {
  ASSERT_EQ(answers.size(), alone.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].ids(), alone[i].ids()) << "request " << i;
    EXPECT_TRUE(answers[i] == alone[i]) << "request " << i << ": logprobs differ";
  }
}

class SameTokens : public testing::TestWithParam<BackendCase> {
 protected:
  std::unique_ptr<Backend> backend(int threads = 1) const { return GetParam().make(threads); }
  std::vector<GenerateRequest> requests() const { return make_requests(n_requests(GetParam())); }

  const std::vector<AnswerRecord>& alone() {
    static std::map<std::string, std::vector<AnswerRecord>> known;
    auto& answers = known[GetParam().name];
    if (answers.empty()) {
      const auto cpu = backend();
      Engine engine(*cpu, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .prefix_cache = false});
      answers = answer_one_by_one(engine, requests());
    }
    return answers;
  }
};

TEST_P(SameTokens, AmongNeighbours) {
  const auto cpu = backend();
  Engine engine(*cpu, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .prefix_cache = false});
  expect_same(answer_together(engine, requests()), alone());
}

TEST_P(SameTokens, WithPromptsCutDifferently) {
  for (const int32_t step_tokens : {7, 64}) {
    const auto cpu = backend();
    Engine engine(*cpu, tiny_checkpoint(),
                  {.step_tokens = step_tokens, .kv_cache_bytes = kPlenty, .prefix_cache = false});
    expect_same(answer_together(engine, requests()), alone());
  }
}

TEST_P(SameTokens, OnAPrefixHit) {
  const auto cpu = backend();
  Engine engine(*cpu, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  expect_same(answer_one_by_one(engine, requests()), alone());
  const uint64_t before = engine.stats().cached_prompt_tokens;
  EXPECT_GT(before, 0u);
  expect_same(answer_together(engine, requests()), alone());
  EXPECT_GT(engine.stats().cached_prompt_tokens, before);
}

TEST_P(SameTokens, AfterPreemptions) {
  const auto cpu = backend();
  const auto growing = make_growing_requests();
  Engine roomy(*cpu, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .prefix_cache = false});
  const auto expected = answer_one_by_one(roomy, growing);
  EXPECT_EQ(roomy.stats().preemptions, 0u);
  roomy.stop();
  for (const bool prefix_cache : {false, true}) {
    // 12 blocks: all five begin, and two of them at their full length take everything.
    Engine engine(*cpu, tiny_checkpoint(),
                  {.step_tokens = 48,
                   .kv_cache_bytes = 12 * 6144,
                   .prefix_cache = prefix_cache,
                   .check_invariants = true});
    expect_same(answer_together(engine, growing), expected);
    engine.stop();
    EXPECT_GT(engine.stats().preemptions, 1u);
    EXPECT_GT(engine.stats().recomputed_tokens, 0u);
  }
}

TEST_P(SameTokens, OnAnyNumberOfThreads) {
  if (GetParam().is_slow) GTEST_SKIP() << "the backend's arithmetic is not the host threads' work";
  for (const int threads : {2, 5}) {
    const auto cpu = backend(threads);
    Engine engine(*cpu, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
    expect_same(answer_together(engine, requests()), alone());
  }
}

INSTANTIATE_TEST_SUITE_P(Kernels, SameTokens, testing::ValuesIn(backend_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tramontane
