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
