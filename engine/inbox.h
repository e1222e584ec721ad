// Inbox: all that the engine thread and other threads share besides each request's Generation: what was
// submitted and not yet taken, the bounds of the queue, and the published figures. One mutex, held for a few
// instructions at a time. Which methods belong to which thread is said below.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/active_request.h"
#include "engine/stats.h"

namespace tramontane {

struct QueueLimits {
  int32_t requests = 0;  // that may wait at a time
  int64_t tokens = 0;    // of their prompts together; a request alone in the queue is never too long
};

// When the newest requests left the queue: the rate that Retry-After is computed from.
class StartTimes {
 public:
  void add(SteadyTime time) { times_[n_++ % times_.size()] = time; }
  // Requests a second, a stall included; 0 before two have started.
  double rate(SteadyTime now) const;

 private:
  std::array<SteadyTime, 32> times_{};
  size_t n_ = 0;
};

class Inbox {
 public:
  using Requests = std::vector<std::unique_ptr<ActiveRequest>>;

  Inbox(const QueueLimits& limits, const EngineStats& first) : limits_(limits), stats_(first) {}

  // --- any thread
  // RequestError: 503 when the engine has stopped or is stopping, 429 with retry_after_s when the queue is
  // full.
  void submit(std::unique_ptr<ActiveRequest> request);
  // The newest published figures, with what is still in the inbox added to the waiting.
  EngineStats stats() const;
  // submit refuses from now on; the engine thread finishes what it has.
  void stop();

  // --- engine thread
  // Moves what was submitted to the end of `active`; sleeps first when both are empty. False: stop.
  bool take(Requests& active);
  // The thread's last look: submit refuses from now on, and what it had accepted moves to `active`.
  void close(Requests& active);
  // A request no longer waits. Once for each: when its first row is planned (`started`), or when it finishes
  // before that.
  void leave_queue(const ActiveRequest& request, bool started);
  // `progress`: when the newest step ended; the watchdog's clock counts from there.
  void publish(const EngineStats& stats, SteadyTime progress);

 private:
  void check_queue(const ActiveRequest& request);
  void move_to(Requests& active);

  const QueueLimits limits_;

  mutable std::mutex mutex_;  // all below
  std::condition_variable wake_;
  Requests submitted_;
  int32_t n_queued_ = 0;  // requests of which no row has been planned, and their prompts' tokens
  int64_t n_queued_tokens_ = 0;
  uint64_t n_refused_ = 0;
  StartTimes starts_;
  bool stopping_ = false, busy_ = false;
  SteadyTime progress_at_;  // the newest step's end, or when work came to an idle engine
  EngineStats stats_;
};

}  // namespace tramontane
