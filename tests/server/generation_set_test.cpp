#include "server/generation_set.h"

#include <gtest/gtest.h>

#include <thread>

#include "tests/server/fake_tokenizer.h"

namespace tramontane {
namespace {

using std::chrono::milliseconds;

TEST(GenerationSet, GivesTheEventsOfAllUntilAllAreDone) {
  const auto a = std::make_shared<Generation>(2), b = std::make_shared<Generation>(2);
  GenerationSet set({a, b}, 2);
  EXPECT_FALSE(set.next(milliseconds(0)));
  std::thread engine([&] {
    for (const int32_t index : {0, 1}) {
      for (const auto& generation : {a, b}) {
        for (int i = 0; i < 50; ++i) generation->events.push(token_event(i, index));
        generation->events.push(finished_event(FinishReason::stop, index));
      }
    }
  });
  int tokens = 0, finished = 0;
  while (!set.done()) {
    const auto event = set.next(milliseconds(100));
    if (!event) continue;
    (event->event.kind == TokenEvent::Kind::finished ? finished : tokens) += 1;
  }
  engine.join();
  EXPECT_EQ(tokens, 200);
  EXPECT_EQ(finished, 4);
}

TEST(GenerationSet, CancelsWhatIsLeft) {
  const auto a = std::make_shared<Generation>(1), b = std::make_shared<Generation>(1);
  {
    GenerationSet set({a, b}, 1);
    a->events.push(finished_event(FinishReason::stop));
    while (!set.next(milliseconds(10))) {
    }
    EXPECT_FALSE(a->cancelled || b->cancelled);
  }
  EXPECT_FALSE(a->cancelled);
  EXPECT_TRUE(b->cancelled);
}

// The slowest prompt's times are the request's; cached tokens are the sum.
TEST(GenerationSet, SumsUpTheTimings) {
  const auto a = std::make_shared<Generation>(1), b = std::make_shared<Generation>(1);
  a->timings = {.queue_s = 3, .prefill_s = 1, .decode_s = 5, .cached_tokens = 16};
  b->timings = {.queue_s = 2, .prefill_s = 4, .decode_s = 3, .cached_tokens = 32};
  const RequestTimings all = GenerationSet({a, b}, 1).timings();
  EXPECT_EQ(all.queue_s, 3);
  EXPECT_EQ(all.prefill_s, 4);
  EXPECT_EQ(all.decode_s, 5);
  EXPECT_EQ(all.cached_tokens, 48);
}

TEST(GenerationSet, CancelsOneSequence) {
  const auto a = std::make_shared<Generation>(2);
  GenerationSet set({a}, 2);
  set.cancel_sequence(0, 1);
  EXPECT_FALSE(a->sequence_cancelled[0]);
  EXPECT_TRUE(a->sequence_cancelled[1]);
  EXPECT_FALSE(a->cancelled);
}

}  // namespace
}  // namespace tramontane
