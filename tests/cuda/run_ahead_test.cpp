// Sampling on the device and steps launched ahead, through the whole engine: the same answers as with the
// same kernels, the host's sampler and an engine that waits for every step.
#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/control.h"
#include "tests/engine/varied_requests.h"
#include "tests/support/forwarding_backend.h"

namespace tramontane {
namespace {

constexpr uint64_t kPlenty = 4 << 20, kBlock = 6144;

class HostSampled : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  bool samples_on_device() const override { return false; }
};

// How far the engine runs ahead.
class Watched : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  int most_ahead = 0;
  void start_read(int place, const std::byte* device, size_t bytes) override {
    most_ahead = std::max(most_ahead, ++ahead_);
    ForwardingBackend::start_read(place, device, bytes);
  }
  void finish_read(int place, std::span<std::byte> host) override {
    --ahead_;
    ForwardingBackend::finish_read(place, host);
  }

 private:
  int ahead_ = 0;
};

std::unique_ptr<Backend> make_backend() {
  return make_cuda_backend({.memory_bytes = uint64_t{256} << 20});
}

TEST(CudaRunAhead, GivesTheAnswersOfHostSampling) {
  const auto cuda = make_backend();
  ASSERT_TRUE(cuda->samples_on_device());
  HostSampled host(*cuda);
  const std::vector<GenerateRequest> requests = make_varied_requests(host, 12);
  Engine waiting(host, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  const Answers expected = answer_together(waiting, requests);
  waiting.stop();
  Watched device(*cuda);
  Engine engine(device, tiny_checkpoint(), {.kv_cache_bytes = kPlenty, .check_invariants = true});
  expect_same(answer_together(engine, requests), expected);
  engine.stop();
  EXPECT_EQ(device.most_ahead, 2);
  EXPECT_EQ(engine.stats().kv_blocks_used, 0);
}

TEST(CudaRunAhead, GivesThemUnderPreemptionsAndWithLogprobs) {
  const auto cuda = make_backend();
  HostSampled host(*cuda);
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < 4; ++i) {
    requests.push_back(make_varied_request(i));
    requests.back().sampling.max_tokens = 34 + i;
    requests.back().sampling.ignore_eos = true;
    if (i % 2 == 0) requests.back().sampling.frequency_penalty = 0.5f;
    if (i == 3) requests.back().sampling.logprobs = 2;
  }
  Engine waiting(host, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  const Answers expected = answer_together(waiting, requests);
  waiting.stop();
  Engine engine(
      *cuda, tiny_checkpoint(),
      {.max_sequences = 6, .step_tokens = 48, .kv_cache_bytes = 6 * kBlock, .check_invariants = true});
  expect_same(answer_together(engine, requests), expected);
  engine.stop();
  EXPECT_GT(engine.stats().preemptions, 0u);
}

}  // namespace
}  // namespace tramontane
