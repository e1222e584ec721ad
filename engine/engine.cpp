#include "engine/engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "engine/accounting.h"
#include "engine/active_request.h"
#include "engine/backend/check.h"
#include "engine/block_manager.h"
#include "engine/inbox.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"
#include "engine/request_checks.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/step_runner.h"

namespace tramontane {
namespace {

EngineStats idle_stats(const MemoryPlan& plan) {
  EngineStats stats;
  stats.kv_blocks_total = plan.kv_blocks;
  return stats;
}

}  // namespace

class Engine::Impl {
 public:
  Impl(Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options,
       const std::function<void(uint64_t, uint64_t)>& progress)
      : options_(options),
        plan_(plan_memory(backend, checkpoint, options)),
        limits_(batch_limits_of(options, plan_.max_model_len)),
        model_(backend, checkpoint, limits_, plan_.max_model_len, progress),
        cache_(backend, model_.attention_shape(), model_.config().n_layers, plan_.kv_blocks),
        blocks_(plan_.kv_blocks),
        scheduler_({.step_tokens = limits_.max_tokens,
                    .max_sequences = limits_.max_sequences,
                    .max_logits = limits_.max_logits},
                   blocks_),
        sampler_(model_.config().vocab_size),
        runner_(backend, model_, cache_, blocks_, sampler_, limits_),
        inbox_({.requests = options.max_queue, .tokens = options.max_queue_tokens}, idle_stats(plan_)),
        accounting_(model_.config().vocab_size, scheduler_, sampler_, inbox_) {
    for (Step& step : steps_) {
      step.chunks.reserve(static_cast<size_t>(limits_.max_sequences));
      step.results.reserve(static_cast<size_t>(limits_.max_sequences));
    }
    thread_ = std::thread([this] { run(); });
  }
  ~Impl() { stop(); }

  // Any thread.
  std::shared_ptr<Generation> submit(GenerateRequest request);
  EngineStats stats() const { return inbox_.stats(); }
  void stop();
  const MemoryPlan& plan() const { return plan_; }
  const ModelConfig& config() const { return model_.config(); }

 private:
  // Engine thread.
  void run();
  bool wait_for_work();
  void enqueue(ActiveRequest& request);
  void step();
  void drop_cancelled(SteadyTime now);
  Step* launch(const SchedulePlan& plan);
  void collect(Step& step);
  void finish_all(FinishReason reason);
  void forget_finished();
  void publish(SteadyTime began, SteadyTime ended);
  void check_invariants() const { blocks_.check(std::span<const Sequence* const>(scheduler_.running())); }

  const EngineOptions options_;
  const MemoryPlan plan_;
  const BatchLimits limits_;
  Mistral model_;
  KvCache cache_;
  BlockManager blocks_;
  Scheduler scheduler_;
  Sampler sampler_;
  StepRunner runner_;
  std::array<Step, 2> steps_;
  Step* in_flight_ = nullptr;  // one of them: launched, not accounted for
  Inbox inbox_;
  Accounting accounting_;
  Inbox::Requests active_;  // queued and running
  uint64_t next_id_ = 0;

  std::mutex join_mutex_;
  std::thread thread_;
};

// --- any thread

std::shared_ptr<Generation> Engine::Impl::submit(GenerateRequest request) {
  check_request(request, {.vocab_size = config().vocab_size, .max_model_len = plan_.max_model_len});
  std::unique_ptr<ActiveRequest> active = make_active_request(std::move(request), config());
  std::shared_ptr<Generation> generation = active->generation;
  inbox_.submit(std::move(active));
  return generation;
}

void Engine::Impl::stop() {
  inbox_.stop();
  std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

// --- engine thread: the loop

void Engine::Impl::run() {
  FinishReason reason = FinishReason::cancelled;
  try {
    while (wait_for_work()) step();
    if (in_flight_ != nullptr) collect(*std::exchange(in_flight_, nullptr));
  } catch (const std::exception& error) {
    spdlog::critical("the engine thread ends: {}", error.what());
    reason = FinishReason::error;
    accounting_.counts.failed = true;
    accounting_.counts.failure = error.what();
    inbox_.publish(accounting_.counts, std::chrono::steady_clock::now());
  }
  finish_all(reason);
  if (reason == FinishReason::error && options_.on_failure) options_.on_failure();
}

// Plan, launch, account: of the step just launched, or, where the device samples, of the one before it, whose
// results come while the device is busy.
void Engine::Impl::step() {
  const SteadyTime began = std::chrono::steady_clock::now();
  drop_cancelled(began);
  if (active_.empty()) return publish(began, began);
  const SchedulePlan& plan = scheduler_.plan();
  accounting_.begin(plan);
  Step* launched = launch(plan);
  if (Step* previous = std::exchange(in_flight_, launched)) collect(*previous);
  if (in_flight_ != nullptr && !runner_.may_run_ahead(*in_flight_))
    collect(*std::exchange(in_flight_, nullptr));
  forget_finished();
  publish(began, launched == nullptr ? began : std::chrono::steady_clock::now());
}

// Null: nothing can be computed before what is in flight is known.
Step* Engine::Impl::launch(const SchedulePlan& plan) {
  if (plan.chunks.empty()) {
    CHECK(in_flight_ != nullptr, "a step with work has something to compute");
    return nullptr;
  }
  Step& step = steps_[in_flight_ == &steps_[0] ? 1 : 0];
  runner_.launch(plan, step);
  accounting_.launched(step);
  return &step;
}

void Engine::Impl::collect(Step& step) {
  runner_.wait(step);
  accounting_.account(step);
}

// --- engine thread: requests come and go

// Takes what was submitted. False: stop.
bool Engine::Impl::wait_for_work() {
  if (active_.empty()) {
    CHECK_EQ(scheduler_.running().size() + scheduler_.waiting().size(), size_t{0});
    check_invariants();
  }
  const size_t n_known = active_.size();
  const bool go_on = inbox_.take(active_);
  for (size_t i = n_known; i < active_.size(); ++i) enqueue(*active_[i]);
  return go_on;
}

void Engine::Impl::enqueue(ActiveRequest& request) {
  const uint64_t root =
      options_.prefix_cache ? blocks_.root_of(request.request.cache_salt) : blocks_.new_root();
  for (ActiveSequence& answer : request.answers) {
    answer.id = next_id_++;
    answer.cache_root = root;
    scheduler_.add(&answer);
  }
}

void Engine::Impl::drop_cancelled(SteadyTime now) {
  for (const auto& active : active_) {
    const bool late = active->request.deadline && now >= *active->request.deadline;
    const bool gone = active->generation->cancelled.load(std::memory_order_relaxed);
    const bool waited = options_.queue_timeout > 0 && !active->started &&
                        seconds_between(active->submitted_at, now) > options_.queue_timeout;
    for (ActiveSequence& answer : active->answers) {
      if (answer.finished) continue;
      if (gone || active->generation->sequence_cancelled[answer.index].load(std::memory_order_relaxed)) {
        accounting_.finish(answer, FinishReason::cancelled);
      } else if (late) {
        accounting_.finish(answer, FinishReason::deadline);
      } else if (waited) {
        accounting_.finish(answer, FinishReason::queue_timeout);
      }
    }
  }
  forget_finished();
}

void Engine::Impl::forget_finished() {
  std::erase_if(active_, [](const auto& active) { return active->is_over(); });
}

// The thread's last act: nobody waits for an event that never comes.
void Engine::Impl::finish_all(FinishReason reason) {
  const size_t n_known = active_.size();
  inbox_.close(active_);
  for (size_t i = n_known; i < active_.size(); ++i) enqueue(*active_[i]);
  for (const auto& active : active_) {
    for (ActiveSequence& answer : active->answers) {
      if (!answer.finished) accounting_.finish(answer, reason);
    }
  }
  forget_finished();
  const SteadyTime now = std::chrono::steady_clock::now();
  publish(now, now);
}

void Engine::Impl::publish(SteadyTime began, SteadyTime ended) {
#ifdef NDEBUG
  const bool check_now = options_.check_invariants;
#else
  const bool check_now = true;
#endif
  if (check_now) check_invariants();
  EngineStats& counts = accounting_.counts;
  counts.running = static_cast<int32_t>(scheduler_.running().size());
  counts.waiting = static_cast<int32_t>(scheduler_.waiting().size());
  counts.waiting_tokens = 0;
  for (const Sequence* sequence : scheduler_.waiting()) counts.waiting_tokens += sequence->length();
  counts.kv_blocks_used = plan_.kv_blocks - blocks_.n_available();
  counts.kv_blocks_total = plan_.kv_blocks;
  if (ended > began) {
    ++counts.steps;
    counts.last_step_seconds = seconds_between(began, ended);
  }
  inbox_.publish(counts, ended);
}

// --- the public face

Engine::Engine(Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options,
               const std::function<void(uint64_t done, uint64_t total)>& progress)
    : impl_(std::make_unique<Impl>(backend, checkpoint, options, progress)) {}
Engine::~Engine() = default;
std::shared_ptr<Generation> Engine::submit(GenerateRequest request) {
  return impl_->submit(std::move(request));
}
EngineStats Engine::stats() const {
  return impl_->stats();
}
void Engine::stop() {
  impl_->stop();
}
const MemoryPlan& Engine::plan() const {
  return impl_->plan();
}
int32_t Engine::max_model_len() const {
  return impl_->plan().max_model_len;
}
int32_t Engine::vocab_size() const {
  return impl_->config().vocab_size;
}

}  // namespace tramontane
