#include "engine/inbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace tramontane {
namespace {

using namespace std::chrono_literals;
using testing::AllOf;
using testing::Ge;
using testing::Le;

std::unique_ptr<ActiveRequest> make(int32_t n_prompt, int32_t n = 1) {
  ModelConfig config;
  config.vocab_size = 10;
  GenerateRequest request;
  request.prompt.assign(static_cast<size_t>(n_prompt), 1);
  request.n = n;
  return make_active_request(std::move(request), config);
}

// Retry-After of the refusal; 0: accepted.
int refusal(Inbox& inbox, int32_t n_prompt) {
  try {
    inbox.submit(make(n_prompt));
    return 0;
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 429);
    return error.retry_after_s;
  }
}

TEST(Inbox, BoundsRequestsAndPromptTokens) {
  Inbox inbox({.requests = 3, .tokens = 100}, {});
  EXPECT_EQ(refusal(inbox, 1000), 0) << "alone, a prompt may be longer than the bound";
  EXPECT_EQ(refusal(inbox, 1), 1) << "nothing has started yet: no rate is known";
  Inbox::Requests active;
  ASSERT_TRUE(inbox.take(active));
  EXPECT_EQ(refusal(inbox, 1), 1) << "taken, but it waits on the engine's side";
  inbox.leave_queue(*active[0], false);
  EXPECT_EQ(refusal(inbox, 60), 0);
  EXPECT_NE(refusal(inbox, 41), 0);
  EXPECT_EQ(refusal(inbox, 20), 0);
  EXPECT_EQ(refusal(inbox, 20), 0);
  EXPECT_NE(refusal(inbox, 0), 0) << "a fourth";
  EXPECT_EQ(inbox.stats().refused, 4u);
}

TEST(Inbox, RetryAfterIsHalfTheQueueAtTheRateOfStarts) {
  Inbox inbox({.requests = 8, .tokens = 1000}, {});
  Inbox::Requests active;
  for (int i = 0; i < 4; ++i) inbox.submit(make(1));
  ASSERT_TRUE(inbox.take(active));
  const auto now = std::chrono::steady_clock::now();
  for (size_t i = 0; i < 4; ++i) {
    active[i]->started_at = now - 40s + i * 10s;
    inbox.leave_queue(*active[i], true);
  }
  for (int i = 0; i < 8; ++i) inbox.submit(make(1));
  EXPECT_THAT(refusal(inbox, 1), AllOf(Ge(40), Le(50)))
      << "4 in front at one in 10 s; slow machines round up";
}

TEST(Inbox, TheRateIsThatOfTheNewestStarts) {
  StartTimes starts;
  SteadyTime now{};
  starts.add(now);
  EXPECT_EQ(starts.rate(now + 1h), 0) << "one start has no rate";
  for (int i = 0; i < 40; ++i) starts.add(now += i < 8 ? 1h : 1s);  // the slow ones are forgotten
  EXPECT_DOUBLE_EQ(starts.rate(now + 1s), 1.0);
  EXPECT_DOUBLE_EQ(starts.rate(now + 33s), 32.0 / 64) << "a stall since then counts";
}

TEST(Inbox, StatsAddWhatIsNotTakenYet) {
  Inbox inbox({.requests = 10, .tokens = 1000}, {});
  EngineStats published;
  published.running = 4;
  published.waiting = 2;
  published.waiting_tokens = 50;
  inbox.publish(published, std::chrono::steady_clock::now());
  inbox.submit(make(30, 3));
  EXPECT_EQ(inbox.stats().running, 4);
  EXPECT_EQ(inbox.stats().waiting, 5);
  EXPECT_EQ(inbox.stats().waiting_tokens, 80);
  Inbox::Requests active;
  ASSERT_TRUE(inbox.take(active));
  EXPECT_EQ(inbox.stats().waiting, 2);
}

// The watchdog must not see an idle night as a stalled engine.
TEST(Inbox, TheClockOfStepsRunsOnlyWhileThereIsWork) {
  Inbox inbox({.requests = 10, .tokens = 1000}, {});
  inbox.submit(make(1));
  Inbox::Requests active;
  ASSERT_TRUE(inbox.take(active));
  inbox.publish({}, std::chrono::steady_clock::now() - 1h);
  EXPECT_GE(inbox.stats().seconds_since_step, 3600);
  active.clear();
  std::thread engine([&] { EXPECT_TRUE(inbox.take(active)); });
  while (inbox.stats().seconds_since_step != 0) std::this_thread::yield();  // it sleeps
  inbox.submit(make(1));
  EXPECT_LT(inbox.stats().seconds_since_step, 3000);
  engine.join();
  EXPECT_EQ(active.size(), 1u);
}

TEST(Inbox, ClosingHandsOverWhatWasAcceptedAndRefusesTheRest) {
  Inbox inbox({.requests = 10, .tokens = 1000}, {});
  inbox.submit(make(1));
  Inbox::Requests active;
  inbox.close(active);
  EXPECT_EQ(active.size(), 1u);
  EXPECT_EQ(inbox.stats().seconds_since_step, 0);
  try {
    inbox.submit(make(1));
    FAIL() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 503);
    EXPECT_EQ(error.code, "shutting_down");
  }
  EXPECT_FALSE(inbox.take(active));
}

}  // namespace
}  // namespace tramontane
