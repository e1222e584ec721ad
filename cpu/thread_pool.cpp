#include "cpu/thread_pool.h"

#include <chrono>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Longer than the pause between two operations of a forward pass, shorter than anyone would notice as idle
// load.
constexpr std::chrono::microseconds kSpin{40};

void pause_briefly() {
  for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
}

// Waits while `value` is `old`: spins first, giving the core away between looks (a busy neighbour may be the
// thread we wait for), then sleeps on the futex.
template <typename T>
void wait_while(const std::atomic<T>& value, T old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  for (int look = 0; value.load(std::memory_order_acquire) == old; ++look) {
    pause_briefly();
    if (look % 8 != 7) continue;
    if (std::chrono::steady_clock::now() > deadline) {
      value.wait(old, std::memory_order_acquire);
      return;
    }
    std::this_thread::yield();
  }
}

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(threads) {
  CHECK_GE(threads, 1);
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_erased(Entry entry, void* context) {
  if (size_ > 1) {
    entry_ = entry;
    context_ = context;
    unfinished_.store(size_ - 1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }
  entry(context, 0);
  if (size_ == 1) return;
  for (int32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;)
    wait_while(unfinished_, left);
}

void ThreadPool::work(int thread) {
  for (uint32_t seen = 0;; ++seen) {
    wait_while(generation_, seen);
    if (stopping_.load(std::memory_order_relaxed)) return;
    entry_(context_, thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
  }
}

}  // namespace tramontane
