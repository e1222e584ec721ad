// Steps launched before the tokens of the step before are known: the answers are those of an engine that
// waits, token by token and bit by bit, whatever ends, is cancelled or preempted in between.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/engine/deferred_backend.h"
#include "tests/engine/engine_support.h"
#include "tests/engine/varied_requests.h"

namespace tramontane {
namespace {

constexpr int32_t kVocab = 32768;
constexpr uint64_t kPlenty = 4 << 20, kBlock = 6144;

class RunAhead : public testing::Test {
 protected:
  static constexpr int32_t kRequests = 40;

  static void SetUpTestSuite() {
    cpu_ = make_cpu_backend({.threads = 1, .kernels = ""}).release();
    requests_ = new std::vector(make_varied_requests(*cpu_, kRequests));
    Engine engine(*cpu_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
    expected_ = new std::vector(answer_together(engine, *requests_));
    int stopped = 0;
    for (const auto& answers : *expected_) stopped += answers[0].finish == FinishReason::stop;
    ASSERT_GT(stopped, kRequests / 4);
  }
  static void TearDownTestSuite() {
    delete expected_;
    delete requests_;
    delete cpu_;
  }

  static inline Backend* cpu_ = nullptr;
  static inline std::vector<GenerateRequest>* requests_ = nullptr;
  static inline Answers* expected_ = nullptr;
  DeferredBackend device_{*cpu_};
};

TEST_F(RunAhead, TheSameAnswersAsAnEngineThatWaits) {
  for (const int32_t step_tokens : {512, 40, 7}) {
    Engine engine(device_, tiny_checkpoint(),
                  {.step_tokens = step_tokens, .kv_cache_bytes = kPlenty, .check_invariants = true});
    expect_same(answer_together(engine, *requests_), *expected_);
    engine.stop();
    EXPECT_EQ(engine.stats().kv_blocks_used, 0);
    uint64_t tokens = 0;
    for (const auto& answers : *expected_) {
      for (const AnswerRecord& answer : answers) tokens += answer.tokens.size();
    }
    EXPECT_EQ(engine.stats().generated_tokens, tokens) << "what is thrown away is not counted";
  }
  EXPECT_EQ(device_.most_ahead, 2);
}

TEST_F(RunAhead, OneByOneAndOnPrefixHits) {
  Engine engine(device_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .check_invariants = true});
  for (int round = 0; round < 2; ++round) {
    Answers answers;
    for (const GenerateRequest& request : *requests_)
      answers.push_back(collect(*engine.submit(request), request.n));
    expect_same(answers, *expected_);
  }
  EXPECT_GT(engine.stats().cached_prompt_tokens, 0u);
}

// A conversation's next turn begins with the answer: its blocks are found, by tokens learnt after their block
// was full.
TEST_F(RunAhead, TheAnswersBlocksAreFound) {
  for (const int32_t n_prompt : {9, 10, 16}) {
    std::vector<int32_t> cached;
    for (Backend* backend : {cpu_, static_cast<Backend*>(&device_)}) {
      Engine engine(*backend, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
      GenerateRequest request = make_request(make_prompt(1, n_prompt, kVocab), 40);
      request.sampling.ignore_eos = true;
      for (const int32_t id : collect(*engine.submit(request))[0].ids()) request.prompt.push_back(id);
      const auto next = engine.submit(request);
      collect(*next);
      cached.push_back(next->timings.cached_tokens);
    }
    EXPECT_EQ(cached[0], (n_prompt + 39) / kBlockTokens * kBlockTokens);
    EXPECT_EQ(cached[1], cached[0]);
  }
}

// Short prompts and long answers: all begin, and two of them at their full length take every block. What the
// device counts for penalties begins anew with each admission.
TEST_F(RunAhead, UnderPreemptions) {
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < 10; ++i) {
    requests.push_back(make_varied_request(i));
    SamplingParams& sampling = requests.back().sampling;
    sampling.max_tokens = 60 + i;
    if (i % 2 == 0) sampling.frequency_penalty = 0.5f;
    if (i % 3 == 0) sampling.stop_token_ids = (*expected_)[static_cast<size_t>(i)][0].ids();
    sampling.min_tokens = 45;
  }
  Engine waiting(*cpu_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  const auto expected = answer_together(waiting, requests);
  for (const bool prefix_cache : {false, true}) {
    Engine engine(device_, tiny_checkpoint(),
                  {.max_sequences = 6,
                   .step_tokens = 48,
                   .kv_cache_bytes = 12 * kBlock,
                   .prefix_cache = prefix_cache,
                   .check_invariants = true});
    expect_same(answer_together(engine, requests), expected);
    engine.stop();
    EXPECT_GT(engine.stats().preemptions, 3u);
    EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  }
  EXPECT_EQ(device_.most_ahead, 2);
}

// Log probabilities need logits on the host: such steps are waited for, the others not.
TEST_F(RunAhead, AmongAnswersWithLogprobs) {
  std::vector<GenerateRequest> requests = *requests_;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (i % 6 == 2) requests[i].sampling.logprobs = 3;
    if (i % 12 == 5) requests[i].sampling.prompt_logprobs = 2;
    if (i % 12 == 11) {
      requests[i].sampling = SamplingParams();
      requests[i].sampling.max_tokens = 0;
      requests[i].sampling.prompt_logprobs = 1;
      requests[i].n = 1;
    }
  }
  Engine waiting(*cpu_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  const auto expected = answer_together(waiting, requests);
  for (const int32_t step_tokens : {512, 16}) {
    Engine engine(device_, tiny_checkpoint(),
                  {.max_sequences = 6,
                   .step_tokens = step_tokens,
                   .kv_cache_bytes = kPlenty,
                   .check_invariants = true});
    expect_same(answer_together(engine, requests), expected);
  }
  EXPECT_EQ(device_.most_ahead, 2);
}

TEST_F(RunAhead, NotWhenEveryAnswerWantsLogprobs) {
  GenerateRequest request = make_varied_request(3);
  request.sampling.logprobs = 0;
  Engine engine(device_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  collect(*engine.submit(request));
  EXPECT_EQ(device_.most_ahead, 1);
}

// An answer's length is known beforehand: only a stop id costs a row.
TEST_F(RunAhead, NoStepBeyondTheLastToken) {
  Engine engine(device_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  GenerateRequest request = make_request(make_prompt(1, 10, kVocab), 9);
  request.sampling.ignore_eos = true;
  const std::vector<int32_t> ids = collect(*engine.submit(request))[0].ids();
  EXPECT_EQ(device_.n_reads, 9);
  const auto first = std::find(ids.begin(), ids.end(), ids[4]) - ids.begin();
  request.sampling.stop_token_ids = {ids[4]};
  collect(*engine.submit(request));
  engine.stop();
  EXPECT_EQ(device_.n_reads, 9 + first + 2);
  EXPECT_EQ(engine.stats().steps, static_cast<uint64_t>(device_.n_reads));
}

// Clients leave at moments of the engine's own thread, between a launch and its results: the same each run.
TEST_F(RunAhead, UnderCancellations) {
  for (uint32_t seed = 1; seed <= 6; ++seed) {
    std::mt19937 random(seed);
    std::vector<std::shared_ptr<Generation>> generations;
    std::vector<int> leave_at;
    for (int32_t i = 0; i < kRequests; ++i)
      leave_at.push_back(random() % 2 == 0 ? static_cast<int>(random() % 60) : -1);
    DeferredBackend device(*cpu_);
    std::atomic<bool> submitted = false;
    device.on_launch = [&](int step) {
      while (!submitted) std::this_thread::yield();
      for (size_t i = 0; i < leave_at.size(); ++i) {
        if (leave_at[i] != step) continue;
        (i % 4 == 0 ? generations[i]->sequence_cancelled[0] : generations[i]->cancelled) = true;
      }
    };
    Engine engine(
        device, tiny_checkpoint(),
        {.max_sequences = 6, .step_tokens = 32, .kv_cache_bytes = 14 * kBlock, .check_invariants = true});
    for (const GenerateRequest& request : *requests_) generations.push_back(engine.submit(request));
    submitted = true;
    uint64_t cancelled = 0;
    for (size_t i = 0; i < generations.size(); ++i) {
      const auto answers = collect(*generations[i], (*requests_)[i].n);
      for (size_t k = 0; k < answers.size(); ++k) {
        EXPECT_EQ(answers[k].finishing_events, 1);
        const std::vector<int32_t> got = answers[k].ids(), want = (*expected_)[i][k].ids();
        if (answers[k].finish != FinishReason::cancelled) {
          EXPECT_EQ(got, want) << "request " << i;
          EXPECT_EQ(answers[k].finish, (*expected_)[i][k].finish);
          continue;
        }
        ++cancelled;
        ASSERT_LE(got.size(), want.size());
        EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin())) << "request " << i;
      }
    }
    engine.stop();
    EXPECT_GT(cancelled, 3u);
    EXPECT_EQ(engine.stats().cancelled, cancelled);
    EXPECT_EQ(engine.stats().kv_blocks_used, 0);
  }
}

TEST_F(RunAhead, StopsWithAStepInFlight) {
  Engine engine(device_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  GenerateRequest request = make_request(make_prompt(1, 10, kVocab), 900);
  request.sampling.ignore_eos = true;
  const auto generation = engine.submit(request);
  ASSERT_TRUE(generation->events.pop_for(std::chrono::minutes(1)).has_value());
  engine.stop();
  EXPECT_EQ(collect(*generation)[0].finish, FinishReason::cancelled);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
}

TEST_F(RunAhead, ADeviceErrorEndsEveryRequest) {
  std::atomic<bool> submitted = false;
  device_.fail_in_step = 4;
  device_.on_launch = [&](int) {
    while (!submitted) std::this_thread::yield();
  };
  Engine engine(device_, tiny_checkpoint(), {.max_sequences = 1, .kv_cache_bytes = kPlenty});
  GenerateRequest request = make_request(make_prompt(1, 10, kVocab), 100);
  request.sampling.ignore_eos = true;
  const auto running = engine.submit(request), waiting = engine.submit(request);
  submitted = true;
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::error);
  EXPECT_EQ(collect(*waiting)[0].finish, FinishReason::error);
  EXPECT_THAT(engine.stats().failure, testing::HasSubstr("device lost"));
}

TEST_F(RunAhead, LogitsThatAreNotFiniteEndTheSequenceAlone) {
  device_.spoil_in_step = 3;
  Engine engine(device_, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .check_invariants = true});
  GenerateRequest request = make_request(make_prompt(14, 40, kVocab), 8);
  request.sampling.ignore_eos = true;
  const auto broken = collect(*engine.submit(request))[0];
  EXPECT_EQ(broken.finish, FinishReason::error);
  EXPECT_EQ(broken.tokens.size(), 3u);
  const auto next = engine.submit(request);
  EXPECT_EQ(collect(*next)[0].tokens.size(), 8u) << "the next request is answered";
  EXPECT_EQ(next->timings.cached_tokens, 0) << "from keys of its own";
}

}  // namespace
}  // namespace tramontane
