#include "cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>

namespace tramontane {
namespace {

TEST(ThreadPool, RunsEveryThreadOnce) {
  for (int threads : {1, 2, 3, 7}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    std::vector<int> calls(static_cast<size_t>(threads), 0);
    pool.run([&](int thread) { ++calls[static_cast<size_t>(thread)]; });
    EXPECT_EQ(calls, std::vector<int>(static_cast<size_t>(threads), 1));
  }
}

// Plain variables, written in one run and read by another thread in the next: run() must order them (the
// thread sanitizer looks on).
TEST(ThreadPool, RunsAreOrdered) {
  constexpr int kThreads = 4, kRuns = 5000;
  ThreadPool pool(kThreads);
  std::vector<int64_t> values(kThreads, 0);
  int64_t expected = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::vector<int64_t> next(kThreads);
    pool.run([&](int thread) {
      const auto from = static_cast<size_t>((thread + run) % kThreads);
      next[static_cast<size_t>(thread)] = values[from] + 1;
    });
    values = next;
    ++expected;
  }
  EXPECT_EQ(values, std::vector<int64_t>(kThreads, expected));
}

TEST(ThreadPool, WakesSleepersAndStops) {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(3);
    std::atomic<int> calls = 0;
    if (round % 2 == 0)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));  // longer than workers spin
    if (round % 3 != 0) pool.run([&](int) { ++calls; });
    EXPECT_EQ(calls, round % 3 != 0 ? 3 : 0);
  }
}

// The caller outlasts its spinning while a worker is busy, and is woken.
TEST(ThreadPool, WaitsForSlowWorkers) {
  ThreadPool pool(3);
  for (int run = 0; run < 10; ++run) {
    std::vector<int> done(3, 0);
    pool.run([&](int thread) {
      if (thread == run % 3) std::this_thread::sleep_for(std::chrono::milliseconds(2));
      done[static_cast<size_t>(thread)] = 1;
    });
    EXPECT_EQ(done, std::vector<int>(3, 1));
  }
}

TEST(ThreadPool, SharesCoverEverythingOnce) {
  for (int threads = 1; threads <= 9; ++threads) {
    for (int64_t count : {0, 1, 2, 7, 64, 1001}) {
      int64_t next = 0;
      for (int t = 0; t < threads; ++t) {
        const Share share = share_of(count, t, threads);
        EXPECT_EQ(share.first, next);
        EXPECT_LE(share.last - share.first, count / threads + 1);
        next = share.last;
      }
      EXPECT_EQ(next, count);
    }
  }
}

}  // namespace
}  // namespace tramontane
