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

// Copies to the device between one step's results and the next one's.
class UploadsCounted : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;
  std::vector<uint64_t> of_steps;
  void start_read(int place, const std::byte* device, size_t bytes) override {
    ForwardingBackend::start_read(place, device, bytes);
    const uint64_t uploads = emulator::uploads();
    of_steps.push_back(uploads - before_);
    before_ = uploads;
  }

 private:
  uint64_t before_ = 0;
};

// The batch in one piece, what is drawn in another: prompts and decode steps, known tokens and pending ones.
TEST(CudaRunAhead, AStepMakesTwoUploads) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "only the emulator counts copies";
  const auto cuda = make_backend();
  UploadsCounted device(*cuda);
  Engine engine(device, tiny_checkpoint(), {.step_tokens = 24, .kv_cache_bytes = kPlenty});
  std::vector<GenerateRequest> requests;
  for (int32_t i = 0; i < 5; ++i) {
    requests.push_back(make_request(make_prompt(static_cast<uint64_t>(i), 4 + 9 * i, 32768), 8));
    SamplingParams& sampling = requests.back().sampling;
    sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    sampling.top_p = 0.9f;
    sampling.logit_bias = {{i, -1.0f}, {100, 2.0f}};
    sampling.min_tokens = 8;
  }
  answer_together(engine, requests);
  engine.stop();
  ASSERT_GT(device.of_steps.size(), 8u);
  for (size_t step = 1; step < device.of_steps.size(); ++step)  // the first one's interval holds the loading
    EXPECT_EQ(device.of_steps[step], 2u) << "step " << step;
}

}  // namespace
}  // namespace tramontane
