// Nothing is allocated on the step path after start-up: this program counts every operator new of each
// thread.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "tests/engine/engine_support.h"
#include "tests/support/forwarding_backend.h"

namespace {
thread_local uint64_t allocations = 0;

// Neither is inlined: the compiler would warn of free() on what operator new gave, which is right here.
[[gnu::noinline]] void release(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void* counted(size_t size, size_t alignment = alignof(std::max_align_t)) {
  ++allocations;
  size = (size + alignment - 1) / alignment * alignment;
  if (void* memory = std::aligned_alloc(alignment, size == 0 ? alignment : size)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(size_t size) {
  return counted(size);
}
void* operator new[](size_t size) {
  return counted(size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void* operator new[](size_t size, std::align_val_t alignment) {
  return counted(size, static_cast<size_t>(alignment));
}
void operator delete(void* memory) noexcept {
  release(memory);
}
void operator delete[](void* memory) noexcept {
  release(memory);
}
void operator delete(void* memory, size_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  release(memory);
}
void operator delete(void* memory, std::align_val_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, std::align_val_t) noexcept {
  release(memory);
}
void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  release(memory);
}
void operator delete[](void* memory, size_t, std::align_val_t) noexcept {
  release(memory);
}

namespace tramontane {
namespace {

// Notes the engine thread's count at the start of each step.
class StepWatcher : public ForwardingBackend {
 public:
  explicit StepWatcher(Backend& inner) : ForwardingBackend(inner) { counts.reserve(10000); }
  void begin_step(const BatchView& batch) override {
    counts.push_back(allocations);
    ForwardingBackend::begin_step(batch);
  }
  std::vector<uint64_t> counts;
};

TEST(StepPath, AllocatesNothing) {
  const auto cpu = make_cpu_backend({.threads = 2, .kernels = ""});
  StepWatcher watcher(*cpu);
  // 40 blocks for 8 sequences that grow to 7 blocks each: they are preempted and admitted again while we
  // count.
  Engine engine(watcher, tiny_checkpoint(),
                {.max_sequences = 8, .step_tokens = 24, .kv_cache_bytes = 40 * 6144});
  std::vector<std::shared_ptr<Generation>> generations;
  for (int32_t i = 0; i < 8; ++i) {
    GenerateRequest request = make_request(make_prompt(static_cast<uint64_t>(i), 30 + i, 32768), 70);
    request.sampling.ignore_eos = true;
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
    request.sampling.top_p = 0.9f;
    request.sampling.top_k = i % 3 == 0 ? 50 : 0;
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.logprobs = 20;
    request.sampling.prompt_logprobs = 20;
    generations.push_back(engine.submit(std::move(request)));
  }
  for (const auto& generation : generations) EXPECT_EQ(collect(*generation)[0].finish, FinishReason::length);
  engine.stop();
  EXPECT_GT(engine.stats().preemptions, 0u);

  // Submitting may overlap the first steps: the inbox and the list of requests grow then. From the moment all
  // have begun, nothing may.
  ASSERT_GT(watcher.counts.size(), 60u);
  size_t allocating = 0;
  for (size_t step = 30; step < watcher.counts.size(); ++step) {
    if (watcher.counts[step] != watcher.counts[step - 1]) ++allocating;
  }
  EXPECT_EQ(allocating, 0u) << "of " << watcher.counts.size() << " steps";
}

}  // namespace
}  // namespace tramontane
