#include "engine/inbox.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <utility>

namespace tramontane {

double StartTimes::rate(SteadyTime now) const {
  if (n_ < 2) return 0;
  const size_t kept = std::min(n_, times_.size());
  return static_cast<double>(kept) /
         std::max(1e-3, seconds_between(times_[(n_ - kept) % times_.size()], now));
}

void Inbox::submit(std::unique_ptr<ActiveRequest> request) {
  {
    std::lock_guard lock(mutex_);
    if (stats_.failed)
      throw RequestError(503, "server_error", "", "The engine has stopped: " + stats_.failure,
                         "engine_failed");
    if (stopping_)
      throw RequestError(503, "server_error", "", "The server is shutting down.", "shutting_down");
    check_queue(*request);
    ++n_queued_;
    n_queued_tokens_ += request->n_prompt();
    submitted_.push_back(std::move(request));
    if (!busy_) progress_at_ = std::chrono::steady_clock::now();
    busy_ = true;
  }
  wake_.notify_one();
}

// mutex_ is held.
void Inbox::check_queue(const ActiveRequest& request) {
  const bool too_many = n_queued_ >= limits_.requests;
  const bool too_long = n_queued_ > 0 && n_queued_tokens_ + request.n_prompt() > limits_.tokens;
  if (!too_many && !too_long) return;
  ++n_refused_;
  const std::string state = too_many ? std::to_string(n_queued_) + " requests"
                                     : std::to_string(n_queued_tokens_) + " prompt tokens";
  RequestError error(429, "rate_limit_error", "",
                     "The server is busy: " + state + " are waiting. Please retry later.",
                     "rate_limit_exceeded");
  // Half of the queue: who comes back at the first free place finds all the other refused ones there.
  const double rate = starts_.rate(std::chrono::steady_clock::now());
  error.retry_after_s =
      rate > 0 ? static_cast<int>(std::clamp(std::ceil(n_queued_ / 2.0 / rate), 1.0, 600.0)) : 1;
  throw error;
}

EngineStats Inbox::stats() const {
  std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.refused = n_refused_;
  for (const auto& request : submitted_) {
    stats.waiting += request->request.n;
    stats.waiting_tokens += request->n_prompt();
  }
  if (busy_ && !stats.failed)
    stats.seconds_since_step = seconds_between(progress_at_, std::chrono::steady_clock::now());
  return stats;
}

void Inbox::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
}

bool Inbox::take(Requests& active) {
  std::unique_lock lock(mutex_);
  if (active.empty() && submitted_.empty() && !stopping_) {
    busy_ = false;
    wake_.wait(lock, [this] { return stopping_ || !submitted_.empty(); });
  }
  move_to(active);
  return !stopping_;
}

void Inbox::close(Requests& active) {
  std::lock_guard lock(mutex_);
  stopping_ = true;
  busy_ = false;
  move_to(active);
}

// mutex_ is held.
void Inbox::move_to(Requests& active) {
  std::move(submitted_.begin(), submitted_.end(), std::back_inserter(active));
  submitted_.clear();
}

void Inbox::leave_queue(const ActiveRequest& request, bool started) {
  std::lock_guard lock(mutex_);
  --n_queued_;
  n_queued_tokens_ -= request.n_prompt();
  if (started) starts_.add(request.started_at);
}

void Inbox::publish(const EngineStats& stats, SteadyTime progress) {
  std::lock_guard lock(mutex_);
  stats_ = stats;
  progress_at_ = progress;
}

}  // namespace tramontane
