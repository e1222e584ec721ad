// The engine end to end: the small golden model on the scalar CPU kernels.
#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <ctime>
#include <functional>
#include <stdexcept>
#include <thread>

#include "engine/model/kv_cache.h"
#include "tests/engine/engine_support.h"
#include "tests/support/forwarding_backend.h"

namespace tramontane {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr int32_t kVocab = 32768;

class EngineTest : public testing::Test {
 protected:
  Engine& start(EngineOptions options = {}) {
    options.check_invariants = true;
    if (options.kv_cache_bytes == 0) options.kv_cache_bytes = 4 << 20;
    engine_.reset();
    engine_ = std::make_unique<Engine>(*backend_, tiny_checkpoint(), options);
    return *engine_;
  }

  std::unique_ptr<Backend> backend_ = make_cpu_backend({.threads = 1, .kernels = "scalar"});
  std::unique_ptr<Engine> engine_;
};

TEST_F(EngineTest, EndsAtMaxTokensAndCountsWhatItDid) {
  Engine& engine = start();
  auto generation = engine.submit(make_request(make_prompt(1, 40, kVocab), 5));
  const auto answers = collect(*generation);
  EXPECT_EQ(answers[0].tokens.size(), 5u);
  EXPECT_EQ(answers[0].finish, FinishReason::length);
  EXPECT_GE(generation->timings.queue_s, 0);
  EXPECT_GT(generation->timings.prefill_s, 0);
  EXPECT_GT(generation->timings.decode_s, 0);
  EXPECT_EQ(generation->timings.cached_tokens, 0);
  engine.stop();
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.prompt_tokens, 40u);
  EXPECT_EQ(stats.generated_tokens, 5u);
  EXPECT_EQ(stats.steps, 5u);
  EXPECT_EQ(stats.finished_length, 1u);
  EXPECT_EQ(stats.running + stats.waiting, 0);
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_FALSE(stats.failed);
}

TEST_F(EngineTest, StopsAtEndOfSequenceStopIdsAndNotBeforeMinTokens) {
  Engine& engine = start();
  GenerateRequest request = make_request(make_prompt(2, 20, kVocab), 12);
  request.sampling.ignore_eos = true;
  const auto free = collect(*engine.submit(request))[0].ids();
  ASSERT_EQ(free.size(), 12u);

  const int32_t stop = free[5];
  const auto first = static_cast<size_t>(std::find(free.begin(), free.end(), stop) - free.begin());
  request.sampling.stop_token_ids = {stop};
  const auto stopped = collect(*engine.submit(request))[0];
  EXPECT_EQ(stopped.finish, FinishReason::stop);
  EXPECT_EQ(stopped.ids(),
            std::vector<int32_t>(free.begin(), free.begin() + static_cast<std::ptrdiff_t>(first)))
      << "the stop id itself is not sent";

  request.sampling.min_tokens = 10;
  const auto longer = collect(*engine.submit(request))[0];
  EXPECT_GE(longer.tokens.size(), 10u);
  for (const int32_t id : longer.ids()) EXPECT_NE(id, stop);
}

TEST_F(EngineTest, ThePrefixCacheIsUsedAndKeptApartBySalt) {
  Engine& engine = start();
  GenerateRequest request = make_request(make_prompt(3, 40, kVocab), 4);
  const auto first = engine.submit(request);
  const auto a = collect(*first);
  const auto second = engine.submit(request);
  const auto b = collect(*second);
  EXPECT_EQ(second->timings.cached_tokens, 32);
  EXPECT_EQ(a, b);
  request.cache_salt = "someone else";
  const auto third = engine.submit(request);
  EXPECT_EQ(collect(*third), a);
  EXPECT_EQ(third->timings.cached_tokens, 0);
}

TEST_F(EngineTest, WithoutPrefixCacheOnlySiblingsShare) {
  Engine& engine = start({.prefix_cache = false});
  GenerateRequest request = make_request(make_prompt(3, 40, kVocab), 4);
  request.n = 3;
  request.sampling.temperature = 1.0f;
  const auto before = engine.stats();
  const auto first = engine.submit(request);
  const auto a = collect(*first, 3);
  const auto second = engine.submit(request);
  EXPECT_EQ(collect(*second, 3), a);
  EXPECT_EQ(second->timings.cached_tokens, 0);
  EXPECT_EQ(engine.stats().cached_prompt_tokens, before.cached_prompt_tokens);
}

TEST_F(EngineTest, SequencesOfOneRequestDifferBySeedAndEqualSingleRequests) {
  Engine& engine = start();
  GenerateRequest request = make_request(make_prompt(4, 30, kVocab), 8);
  request.sampling.temperature = 1.5f;
  request.sampling.ignore_eos = true;
  request.sampling.seed = 100;
  request.n = 3;
  const auto together = collect(*engine.submit(request), 3);
  EXPECT_NE(together[0].ids(), together[1].ids());
  request.n = 1;
  for (uint64_t i = 0; i < 3; ++i) {
    request.sampling.seed = 100 + i;
    EXPECT_EQ(collect(*engine.submit(request))[0], together[i]);
  }
}

TEST_F(EngineTest, PromptLogprobsEqualTheLogprobsOfGeneratingThePrompt) {
  Engine& engine = start({.step_tokens = 8});
  GenerateRequest request = make_request(make_prompt(5, 20, kVocab), 6);
  request.sampling.logprobs = 3;
  request.sampling.ignore_eos = true;
  const AnswerRecord generated = collect(*engine.submit(request))[0];
  for (const int32_t id : generated.ids()) request.prompt.push_back(id);
  request.sampling.prompt_logprobs = 3;
  request.sampling.logprobs = -1;
  request.sampling.max_tokens = 0;
  const AnswerRecord scored = collect(*engine.submit(request))[0];
  EXPECT_EQ(scored.finish, FinishReason::length);
  EXPECT_TRUE(scored.tokens.empty());
  ASSERT_EQ(scored.prompt.size(), 25u);  // every position but the first
  EXPECT_EQ(std::vector<TokenRecord>(scored.prompt.begin() + 19, scored.prompt.end()), generated.tokens);
  for (size_t i = 0; i < scored.prompt.size(); ++i) EXPECT_EQ(scored.prompt[i].token, request.prompt[i + 1]);
}

TEST_F(EngineTest, CancellationWorksInQueuePrefillAndDecode) {
  Engine& engine = start({.max_sequences = 1, .step_tokens = 4});
  GenerateRequest endless = make_request(make_prompt(6, 8, kVocab), 1000);
  endless.sampling.ignore_eos = true;
  const auto running = engine.submit(endless);
  const auto queued = engine.submit(endless);
  queued->cancelled = true;
  EXPECT_EQ(collect(*queued)[0].finish, FinishReason::cancelled);
  ASSERT_TRUE(running->events.pop_for(1min).has_value());  // decoding
  EXPECT_GT(engine.stats().kv_blocks_used, 0);
  running->cancelled = true;
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::cancelled);
  const auto prefilling = engine.submit(make_request(make_prompt(7, 900, kVocab), 10));
  while (engine.stats().running == 0) std::this_thread::yield();
  prefilling->cancelled = true;
  const auto answer = collect(*prefilling)[0];
  EXPECT_EQ(answer.finish, FinishReason::cancelled);
  EXPECT_TRUE(answer.tokens.empty());
  engine.stop();
  EXPECT_EQ(engine.stats().cancelled, 3u);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
}

TEST_F(EngineTest, OneSequenceOfARequestCanBeCancelled) {
  Engine& engine = start();
  GenerateRequest request = make_request(make_prompt(8, 20, kVocab), 200);
  request.sampling.ignore_eos = true;
  request.n = 2;
  const auto generation = engine.submit(request);
  generation->sequence_cancelled[0] = true;
  const auto answers = collect(*generation, 2);
  EXPECT_EQ(answers[0].finish, FinishReason::cancelled);
  EXPECT_EQ(answers[1].finish, FinishReason::length);
  EXPECT_EQ(answers[1].tokens.size(), 200u);
}

TEST_F(EngineTest, DeadlinesEndRunningAndWaitingRequests) {
  Engine& engine = start({.max_sequences = 1});
  GenerateRequest request = make_request(make_prompt(9, 10, kVocab), 1000);
  request.sampling.ignore_eos = true;
  request.deadline = std::chrono::steady_clock::now() + 50ms;
  const auto running = engine.submit(request);
  request.deadline = std::chrono::steady_clock::now();
  const auto waiting = engine.submit(request);
  EXPECT_EQ(collect(*waiting)[0].finish, FinishReason::deadline);
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::deadline);
  engine.stop();
  EXPECT_EQ(engine.stats().deadline_passed, 2u);
}

TEST_F(EngineTest, AFullQueueRefusesWithRetryAfter) {
  Engine& engine = start({.max_sequences = 1, .max_queue = 2, .max_queue_tokens = 100});
  GenerateRequest request = make_request(make_prompt(10, 60, kVocab), 900);
  request.sampling.ignore_eos = true;
  std::vector<std::shared_ptr<Generation>> accepted;
  accepted.push_back(engine.submit(request));
  ASSERT_TRUE(accepted[0]->events.pop_for(1min).has_value());  // it runs: the queue is empty
  accepted.push_back(engine.submit(request));
  const auto refusal = [&](const GenerateRequest& refused) {
    try {
      accepted.push_back(engine.submit(refused));
    } catch (const RequestError& error) {
      EXPECT_EQ(error.status, 429);
      EXPECT_EQ(error.code, "rate_limit_exceeded");
      EXPECT_GE(error.retry_after_s, 1);
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_THAT(refusal(request), HasSubstr("60 prompt tokens"));
  request.prompt.resize(10);
  EXPECT_EQ(refusal(request), "accepted");
  EXPECT_THAT(refusal(request), HasSubstr("2 requests"));
  EXPECT_EQ(engine.stats().refused, 2u);
  for (const auto& generation : accepted) generation->cancelled = true;
  for (size_t i = 1; i < accepted.size(); ++i) collect(*accepted[i]);
}

TEST_F(EngineTest, WhatNeverFitsIsRefusedAtTheDoor) {
  Engine& engine = start({.kv_cache_bytes = 16 * 6144});  // 16 blocks of 2 * 32 * 16 * 2 bytes * 3 layers
  EXPECT_EQ(engine.max_model_len(), 256);
  try {
    engine.submit(make_request(make_prompt(1, 200, kVocab), 57));
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.code, "context_length_exceeded");
  }
  EXPECT_EQ(collect(*engine.submit(make_request(make_prompt(1, 255, kVocab), 1)))[0].tokens.size(), 1u);
}

TEST_F(EngineTest, StopFinishesEverythingAndRefusesWhatComesLater) {
  Engine& engine = start({.max_sequences = 1});
  GenerateRequest request = make_request(make_prompt(11, 10, kVocab), 1000);
  request.sampling.ignore_eos = true;
  const auto running = engine.submit(request), waiting = engine.submit(request);
  ASSERT_TRUE(running->events.pop_for(1min).has_value());
  std::thread second([&] { engine.stop(); });  // any thread, any number of times
  engine.stop();
  second.join();
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::cancelled);
  EXPECT_EQ(collect(*waiting)[0].finish, FinishReason::cancelled);
  try {
    engine.submit(request);
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 503);
  }
}

TEST_F(EngineTest, IdleTakesNoProcessorTime) {
  Engine& engine = start();
  collect(*engine.submit(make_request(make_prompt(12, 10, kVocab), 2)));
  std::this_thread::sleep_for(50ms);  // the backend's own threads go to sleep
  const std::clock_t before = std::clock();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC, 0.05)
      << "a spinning thread would have taken 0.2 s";
  EXPECT_EQ(engine.stats().seconds_since_step, 0);
}

// Fails in the given step, or spoils its logits, or every key and value that is stored until it ends.
class FaultyBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  int fail_at = -1, spoil_at = -1, spoil_cache_at = -1;
  std::chrono::milliseconds step_takes{0};
  std::atomic<bool> may_begin = true;
  std::function<void()> when_spoilt = [] {};
  void begin_step(const BatchView& batch) override {
    while (!may_begin) std::this_thread::yield();
    std::this_thread::sleep_for(step_takes);
    if (step_ == fail_at) throw std::runtime_error("device lost");
    ForwardingBackend::begin_step(batch);
  }
  void norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                     std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv) override {
    ForwardingBackend::norm_qkv_rope(x, delta, norm, eps, h, w, qkv, batch, shape, rope, kv);
    if (step_ != spoil_cache_at) return;
    const size_t bytes = KvCache::page_bytes(shape, act_dtype()) * static_cast<size_t>(kv.n_blocks);
    upload(kv.data, std::vector<std::byte>(bytes, std::byte{0xff}));  // NaNs
    when_spoilt();
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    ForwardingBackend::download(device, host);
    if (step_++ == spoil_at)
      reinterpret_cast<float*>(host.data())[123] = std::numeric_limits<float>::quiet_NaN();
  }

 private:
  int step_ = 0;
};

TEST_F(EngineTest, ADeviceErrorEndsEveryRequestAndIsRemembered) {
  FaultyBackend faulty(*backend_);
  faulty.fail_at = 3;
  faulty.may_begin = false;
  Engine engine(faulty, tiny_checkpoint(), {.max_sequences = 1, .kv_cache_bytes = 1 << 20});
  GenerateRequest request = make_request(make_prompt(13, 10, kVocab), 100);
  request.sampling.ignore_eos = true;
  const auto running = engine.submit(request), waiting = engine.submit(request);
  faulty.may_begin = true;  // both are in
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::error);
  EXPECT_EQ(collect(*waiting)[0].finish, FinishReason::error);
  try {
    engine.submit(request);
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 503);
    EXPECT_THAT(error.what(), HasSubstr("device lost"));
  }
  EXPECT_TRUE(engine.stats().failed);
  EXPECT_THAT(engine.stats().failure, HasSubstr("device lost"));
  engine.stop();
}

// The step that computes the prompt is prefill, not waiting; each later one is decode.
TEST_F(EngineTest, TimingsTellPrefillFromDecode) {
  FaultyBackend slow(*backend_);
  slow.step_takes = 20ms;
  Engine engine(slow, tiny_checkpoint(), {.max_sequences = 1, .kv_cache_bytes = 1 << 20});
  const auto generation = engine.submit(make_request(make_prompt(15, 10, kVocab), 3));
  ASSERT_EQ(collect(*generation)[0].tokens.size(), 3u);
  EXPECT_GE(generation->timings.prefill_s, 0.020);
  EXPECT_GE(generation->timings.decode_s, 0.040);
}

TEST_F(EngineTest, WhoWaitsTooLongIsSentAwayAndWhoRunsIsNot) {
  FaultyBackend slow(*backend_);
  slow.step_takes = 20ms;
  Engine engine(slow, tiny_checkpoint(),
                {.max_sequences = 1, .kv_cache_bytes = 1 << 20, .queue_timeout = 0.3});
  GenerateRequest request = make_request(make_prompt(16, 10, kVocab), 60);
  request.sampling.ignore_eos = true;
  const auto running = engine.submit(request), waiting = engine.submit(request);
  EXPECT_EQ(collect(*waiting)[0].finish, FinishReason::queue_timeout);
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::length);
  engine.stop();
  EXPECT_EQ(engine.stats().queue_timeouts, 1u);
}

TEST_F(EngineTest, LogitsThatAreNotFiniteEndTheSequenceAlone) {
  FaultyBackend faulty(*backend_);
  faulty.spoil_at = 2;
  Engine engine(faulty, tiny_checkpoint(), {.max_sequences = 1, .kv_cache_bytes = 1 << 20});
  GenerateRequest request = make_request(make_prompt(14, 10, kVocab), 6);
  request.sampling.ignore_eos = true;
  const auto broken = collect(*engine.submit(request))[0];
  EXPECT_EQ(broken.finish, FinishReason::error);
  EXPECT_EQ(broken.tokens.size(), 2u);
  EXPECT_EQ(collect(*engine.submit(request))[0].tokens.size(), 6u) << "the next request is answered";
}

// In whichever of a prompt's steps keys went bad, and whoever notices it: what came of them is not served
// from the cache, and what their blocks still hold harms nobody.
TEST_F(EngineTest, KeysThatAreNotFiniteAreNotShared) {
  GenerateRequest request = make_request(make_prompt(14, 70, kVocab), 6);
  request.sampling.ignore_eos = true;
  const auto expected = collect(*start().submit(request))[0];
  for (const bool scores : {false, true}) {
    for (const int step : {0, 2, 4, 7}) {  // 70 tokens are 5 steps of 16; the last ones write answers
      FaultyBackend faulty(*backend_);
      faulty.spoil_cache_at = step;
      Engine engine(
          faulty, tiny_checkpoint(),
          {.max_sequences = 1, .step_tokens = 16, .kv_cache_bytes = 6 * 6144, .check_invariants = true});
      GenerateRequest first = request;
      first.sampling.prompt_logprobs = scores ? 0 : -1;
      EXPECT_EQ(collect(*engine.submit(first))[0].finish, FinishReason::error) << "step " << step;
      const auto next = engine.submit(request);
      EXPECT_EQ(collect(*next)[0], expected) << "step " << step;
      EXPECT_EQ(next->timings.cached_tokens, 0);
      const auto again = engine.submit(request);
      EXPECT_EQ(collect(*again)[0], expected);
      EXPECT_EQ(again->timings.cached_tokens, 64) << "what was computed anew is";
    }
  }
}

// Nobody looked at the logits of who left: the first one who does fails, the next one is answered.
TEST_F(EngineTest, KeysThatAreNotFiniteFailOneRequestOnly) {
  FaultyBackend faulty(*backend_);
  faulty.spoil_cache_at = 1;
  faulty.may_begin = false;
  std::shared_ptr<Generation> leaver;
  faulty.when_spoilt = [&] { leaver->cancelled = true; };
  Engine engine(faulty, tiny_checkpoint(), {.step_tokens = 32, .kv_cache_bytes = 1 << 20});
  const GenerateRequest request = make_request(make_prompt(14, 70, kVocab), 6);
  leaver = engine.submit(request);
  faulty.may_begin = true;
  EXPECT_EQ(collect(*leaver)[0].finish, FinishReason::cancelled);
  const auto finder = engine.submit(request);
  EXPECT_EQ(collect(*finder)[0].finish, FinishReason::error);
  EXPECT_EQ(finder->timings.cached_tokens, 64);
  EXPECT_NE(collect(*engine.submit(request))[0].finish, FinishReason::error);
}

TEST_F(EngineTest, PromptScoresThatAreNotFiniteEndTheSequenceOnce) {
  FaultyBackend faulty(*backend_);
  faulty.spoil_at = 0;
  Engine engine(faulty, tiny_checkpoint(), {.max_sequences = 1, .kv_cache_bytes = 1 << 20});
  GenerateRequest request = make_request(make_prompt(17, 10, kVocab), 6);
  request.sampling.prompt_logprobs = 0;
  const auto broken = collect(*engine.submit(request))[0];
  EXPECT_EQ(broken.finish, FinishReason::error);
  EXPECT_EQ(broken.finishing_events, 1);
  EXPECT_TRUE(broken.tokens.empty());
  EXPECT_EQ(collect(*engine.submit(request))[0].prompt.size(), 9u) << "the next request is answered";
  engine.stop();
  EXPECT_EQ(engine.stats().errors, 1u);
}

// Many clients at once, with cancellations: for the thread sanitizer, and for the one finishing event that
// each must get.
TEST_F(EngineTest, ManyThreadsSubmitCancelAndRead) {
  Engine& engine = start({.max_sequences = 4, .step_tokens = 32});
  std::vector<std::thread> clients;
  for (uint64_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      for (uint64_t i = 0; i < 4; ++i) {
        GenerateRequest request =
            make_request(make_prompt(client, 10 + static_cast<int32_t>(i) * 7, kVocab), 6);
        request.n = i % 2 == 0 ? 1 : 2;
        const auto generation = engine.submit(request);
        if ((client + i) % 3 == 0) generation->cancelled = true;
        for (const AnswerRecord& answer : collect(*generation, request.n))
          EXPECT_EQ(answer.finishing_events, 1);
        (void)engine.stats();
      }
    });
  }
  for (std::thread& client : clients) client.join();
}

}  // namespace
}  // namespace tramontane
