#include "server/sse.h"

#include <gtest/gtest.h>

#include <thread>

namespace tramontane {
namespace {

class StringSink final : public ByteSink {
 public:
  bool write(std::string_view bytes) override {
    if (broken) return false;
    text += bytes;
    return true;
  }
  bool alive() override { return !gone; }
  std::string text;
  bool broken = false, gone = false;
};

TEST(Sse, Framing) {
  StringSink sink;
  SseWriter sse(sink);
  sse.ping();
  sse.data({{"a", "line\nbreak"}});
  sse.done();
  EXPECT_EQ(sink.text, ": ping\n\ndata: {\"a\":\"line\\nbreak\"}\n\ndata: [DONE]\n\n");
}

TEST(Sse, PingsOnlyWhenQuiet) {
  StringSink sink;
  SseWriter sse(sink);
  const auto now = SseWriter::Clock::now();
  sse.ping_if_quiet(now + std::chrono::seconds(9));
  EXPECT_EQ(sink.text, "");
  sse.ping_if_quiet(now + std::chrono::seconds(11));
  EXPECT_EQ(sink.text, ": ping\n\n");
}

TEST(Sse, AWriteStartsTheQuietAnew) {
  StringSink sink;
  SseWriter sse(sink);
  const auto made = SseWriter::Clock::now();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  sse.done();
  sse.ping_if_quiet(made + std::chrono::milliseconds(10010));
  EXPECT_EQ(sink.text, "data: [DONE]\n\n");
}

TEST(Sse, AFailedWriteIsTheEnd) {
  StringSink sink;
  SseWriter sse(sink);
  EXPECT_TRUE(sse.alive());
  sink.broken = true;
  sse.ping();
  EXPECT_FALSE(sse.alive());
  sink.broken = false;
  sse.ping();
  EXPECT_EQ(sink.text, "");
}

TEST(Sse, AVanishedClientIsNoticedWithoutWriting) {
  StringSink sink;
  SseWriter sse(sink);
  sink.gone = true;
  EXPECT_FALSE(sse.alive());
}

}  // namespace
}  // namespace tramontane
