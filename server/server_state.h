// ServerState: what the sockets, the routes and shutdown share. Every member may be used from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "server/served_model.h"

namespace tramontane {

class ServerState {
 public:
  std::atomic<const ServedModel*> model = nullptr;  // null while loading
  std::atomic<bool> draining = false;               // new requests are refused
  std::atomic<bool> aborting = false;               // requests in flight end now, with an error

  void set_loading(const std::string& what, double share) {
    std::lock_guard lock(mutex_);
    loading_ = {what, share};
  }
  std::pair<std::string, double> loading() const {
    std::lock_guard lock(mutex_);
    return loading_;
  }

  // Counts one request in flight for as long as it lives.
  class InFlight {
   public:
    explicit InFlight(ServerState& state) : state_(state) { state_.add(1); }
    ~InFlight() { state_.add(-1); }
    InFlight(const InFlight&) = delete;
    InFlight& operator=(const InFlight&) = delete;

   private:
    ServerState& state_;
  };
  int in_flight() const {
    std::lock_guard lock(mutex_);
    return in_flight_;
  }

  // Whether nothing is in flight any more, waiting at most `timeout`, or until abort() was called.
  bool wait_until_quiet(std::chrono::duration<double> timeout) {
    std::unique_lock lock(mutex_);
    quiet_.wait_for(lock, timeout, [this] { return in_flight_ == 0 || aborting; });
    return in_flight_ == 0;
  }
  void abort() {
    std::lock_guard lock(mutex_);
    aborting = true;
    quiet_.notify_all();
  }

 private:
  void add(int change) {
    std::lock_guard lock(mutex_);
    in_flight_ += change;
    if (in_flight_ == 0) quiet_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable quiet_;
  std::pair<std::string, double> loading_{"starting", 0.0};
  int in_flight_ = 0;
};

}  // namespace tramontane
