// ConnectionPool: the threads that serve connections, one connection a thread. Threads are started when
// needed and kept. Connections past the limit go to one small overflow thread, which answers them 503; past
// that thread's queue they are refused.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tramontane {

class ConnectionPool {
 public:
  ConnectionPool(size_t max_threads, size_t max_overflow);
  ~ConnectionPool();

  // False: both are full, the connection is to be closed.
  bool enqueue(std::function<void()> job);
  // Runs what is queued, then joins. Idempotent.
  void shutdown();

  // Whether the calling thread is the overflow thread: its requests are answered 503.
  static bool on_overflow_thread();

 private:
  void work();
  void work_overflow();

  const size_t max_threads_, max_overflow_;
  std::mutex mutex_;
  std::condition_variable work_ready_, overflow_ready_;
  std::deque<std::function<void()>> jobs_, overflow_jobs_;
  std::vector<std::thread> threads_;
  std::thread overflow_thread_;
  size_t idle_ = 0;
  bool shutdown_ = false;
};

}  // namespace tramontane
