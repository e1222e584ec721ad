#include "engine/channel.h"

#include <gtest/gtest.h>

#include <thread>

namespace tramontane {
namespace {

using namespace std::chrono_literals;

TEST(Channel, GivesItemsInOrderAndNothingWhenEmpty) {
  Channel<int> channel;
  channel.push(1);
  channel.push(2);
  EXPECT_EQ(channel.pop_for(0ms), 1);
  EXPECT_EQ(channel.pop_for(0ms), 2);
  EXPECT_EQ(channel.pop_for(0ms), std::nullopt);
}

TEST(Channel, WakesAWaitingReader) {
  Channel<int> channel;
  channel.reserve(1000);
  std::thread writer([&] {
    for (int i = 0; i < 1000; ++i) channel.push(i);
  });
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(channel.pop_for(60s), i);
  writer.join();
}

}  // namespace
}  // namespace tramontane
