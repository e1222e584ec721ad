#include "server/connection_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <latch>

namespace tramontane {
namespace {

TEST(ConnectionPool, OverflowGoesToItsOwnThreadAndThenNowhere) {
  ConnectionPool pool(2, 1);
  std::latch busy(3), release(1);
  std::atomic<int> overflowed = 0;
  const auto hold = [&] {
    if (ConnectionPool::on_overflow_thread()) ++overflowed;
    busy.count_down();
    release.wait();
  };
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(pool.enqueue(hold));
  busy.wait();  // two on the threads, one on the overflow thread
  EXPECT_EQ(overflowed, 1);
  std::atomic<bool> late = false;
  EXPECT_TRUE(pool.enqueue([&] { late = true; }));  // waits for the overflow thread
  EXPECT_FALSE(pool.enqueue([] {}));
  release.count_down();
  pool.shutdown();
  EXPECT_TRUE(late);
  EXPECT_FALSE(pool.enqueue([] {}));
}

TEST(ConnectionPool, RunsEverythingThatWasTaken) {
  std::atomic<int> ran = 0;
  ConnectionPool pool(4, 1000);
  int taken = 0;
  for (int i = 0; i < 500; ++i) taken += pool.enqueue([&] { ++ran; });
  pool.shutdown();
  EXPECT_EQ(ran, taken);
  EXPECT_EQ(taken, 500);
}

}  // namespace
}  // namespace tramontane
