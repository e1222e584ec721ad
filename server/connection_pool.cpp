#include "server/connection_pool.h"

#include <utility>

namespace tramontane {
namespace {

thread_local bool overflow_thread = false;

}  // namespace

ConnectionPool::ConnectionPool(size_t max_threads, size_t max_overflow)
    : max_threads_(max_threads), max_overflow_(max_overflow) {
  overflow_thread_ = std::thread([this] { work_overflow(); });
}

ConnectionPool::~ConnectionPool() {
  shutdown();
}

bool ConnectionPool::on_overflow_thread() {
  return overflow_thread;
}

bool ConnectionPool::enqueue(std::function<void()> job) {
  std::lock_guard lock(mutex_);
  if (shutdown_) return false;
  if (idle_ > jobs_.size()) {
    jobs_.push_back(std::move(job));
    work_ready_.notify_one();
    return true;
  }
  if (threads_.size() < max_threads_) {
    jobs_.push_back(std::move(job));
    threads_.emplace_back([this] { work(); });
    return true;
  }
  if (overflow_jobs_.size() >= max_overflow_) return false;
  overflow_jobs_.push_back(std::move(job));
  overflow_ready_.notify_one();
  return true;
}

void ConnectionPool::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    ++idle_;
    work_ready_.wait(lock, [this] { return shutdown_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

void ConnectionPool::work_overflow() {
  overflow_thread = true;
  std::unique_lock lock(mutex_);
  while (true) {
    overflow_ready_.wait(lock, [this] { return shutdown_ || !overflow_jobs_.empty(); });
    if (overflow_jobs_.empty()) return;
    const std::function<void()> job = std::move(overflow_jobs_.front());
    overflow_jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
  }
}

void ConnectionPool::shutdown() {
  {
    std::lock_guard lock(mutex_);
    shutdown_ = true;
  }
  work_ready_.notify_all();
  overflow_ready_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  if (overflow_thread_.joinable()) overflow_thread_.join();
}

}  // namespace tramontane
