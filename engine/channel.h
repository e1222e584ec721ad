// Channel: a first-in first-out queue from one thread to another. Pushing never blocks and, within the
// reserved capacity, never allocates.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace tramontane {

template <typename T>
class Channel {
 public:
  // Room for `capacity` unread and read items together; called before the producer starts.
  void reserve(size_t capacity) {
    std::lock_guard lock(mutex_);
    items_.reserve(capacity);
  }

  void push(const T& item) {
    {
      std::lock_guard lock(mutex_);
      items_.push_back(item);
    }
    ready_.notify_one();
  }

  // The next item, or nothing when `timeout` passes first.
  template <typename Rep, typename Period>
  std::optional<T> pop_for(std::chrono::duration<Rep, Period> timeout) {
    std::unique_lock lock(mutex_);
    if (!ready_.wait_for(lock, timeout, [this] { return next_ < items_.size(); })) return std::nullopt;
    return items_[next_++];
  }

 private:
  std::mutex mutex_;
  std::condition_variable ready_;
  std::vector<T> items_;
  size_t next_ = 0;
};

}  // namespace tramontane
