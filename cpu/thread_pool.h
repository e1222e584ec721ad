// ThreadPool: a fixed team that runs one function on every thread and joins. Used by the engine thread only; one run at a time.
// Workers spin for some microseconds, then sleep on a futex: idle costs nothing and busy neighbours do not stop the world.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace tramontane {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);   // >= 1; the caller is one of them
  ~ThreadPool();

  int size() const { return size_; }

  // Calls body(thread) once on every thread 0..size-1 and returns when all are done. Never allocates. The body must not throw.
  template <typename Body>
  void run(Body&& body) {
    run_erased([](void* context, int thread) { (*static_cast<std::remove_reference_t<Body>*>(context))(thread); }, &body);
  }

 private:
  using Entry = void (*)(void* context, int thread);
  void run_erased(Entry entry, void* context);
  void work(int thread);

  int size_;
  std::vector<std::thread> workers_;
  Entry entry_ = nullptr;
  void* context_ = nullptr;
  std::atomic<uint32_t> generation_ = 0;   // bumped to start a run
  std::atomic<int32_t> unfinished_ = 0;
  std::atomic<bool> stopping_ = false;
};

// The share of `count` units that thread t of n takes: [first, last), contiguous, sizes within one of each other.
struct Share {
  int64_t first, last;
};
inline Share share_of(int64_t count, int thread, int threads) {
  return {count * thread / threads, count * (thread + 1) / threads};
}

}  // namespace tramontane
