#include "engine/engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "engine/backend/check.h"
#include "engine/batch.h"
#include "engine/block_manager.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"
#include "engine/request_checks.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"

namespace tramontane {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

struct ActiveRequest;

// One of a request's n sequences, as the engine sees it.
struct Answer : Sequence {
  ActiveRequest* owner = nullptr;
  int32_t index = 0;
  bool finished = false;
};

struct ActiveRequest {
  GenerateRequest request;
  std::shared_ptr<Generation> generation;
  std::vector<Answer> answers;
  SequenceGroup group;
  std::vector<int32_t> end_ids;  // what ends an answer: the model's own ids unless ignored, and the request's
  int32_t n_unfinished = 0;
  bool started = false;  // a row of it has been planned: it no longer counts as queued
  Clock::time_point submitted_at, started_at, first_token_at;
  bool has_token = false;

  int64_t n_prompt() const { return static_cast<int64_t>(request.prompt.size()); }
};

Answer& answer_of(Sequence* sequence) {
  return static_cast<Answer&>(*sequence);
}

// When the newest requests left the queue: the rate that Retry-After is computed from.
class StartTimes {
 public:
  void add(Clock::time_point time) { times_[n_++ % times_.size()] = time; }
  // Requests a second, a stall included; 0 before two have started.
  double rate(Clock::time_point now) const {
    if (n_ < 2) return 0;
    const size_t kept = std::min(n_, times_.size());
    return static_cast<double>(kept) /
           std::max(1e-3, seconds_between(times_[(n_ - kept) % times_.size()], now));
  }

 private:
  std::array<Clock::time_point, 32> times_{};
  size_t n_ = 0;
};

MemoryPlan plan_for(Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options) {
  return plan_memory(checkpoint.config(), checkpoint.weight_bytes(), backend.act_dtype(), options,
                     host_available_bytes());
}

}  // namespace

class Engine::Impl {
 public:
  Impl(Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options,
       const std::function<void(uint64_t, uint64_t)>& progress)
      : backend_(backend),
        options_(options),
        plan_(plan_for(backend, checkpoint, options)),
        limits_(batch_limits_of(options, plan_.max_model_len)),
        model_(backend, checkpoint, limits_.max_tokens, limits_.max_logits, plan_.max_model_len, progress),
        cache_(backend, model_.attention_shape(), model_.config().n_layers, plan_.kv_blocks),
        batch_(backend, limits_),
        blocks_(plan_.kv_blocks),
        scheduler_({.step_tokens = limits_.max_tokens,
                    .max_sequences = limits_.max_sequences,
                    .max_logits = limits_.max_logits},
                   blocks_),
        sampler_(model_.config().vocab_size),
        logits_(static_cast<size_t>(limits_.max_logits) * static_cast<size_t>(model_.config().vocab_size)) {
    stats_.kv_blocks_total = plan_.kv_blocks;
    thread_ = std::thread([this] { run(); });
  }
  ~Impl() { stop(); }

  std::shared_ptr<Generation> submit(GenerateRequest request);
  EngineStats stats() const;
  void stop();

  const MemoryPlan& plan() const { return plan_; }
  const ModelConfig& config() const { return model_.config(); }

 private:
  // Any thread.
  std::unique_ptr<ActiveRequest> prepare(GenerateRequest request) const;
  void check_queue(const ActiveRequest& request);

  // Engine thread.
  void run();
  bool wait_for_work();
  void take(std::unique_ptr<ActiveRequest> request);
  void drop_cancelled(Clock::time_point now);
  void step();
  std::span<const float> compute(const SchedulePlan& plan);
  void account(const SchedulePlan& plan, std::span<const float> logits);
  void account_start(const SchedulePlan& plan);
  void report_scores(const Chunk& chunk, std::span<const float> rows);
  void sample(Answer& answer, std::span<const float> logits);
  void send_token(Answer& answer, int32_t token, std::span<const float> logits);
  TokenEvent event_with_top(Generation& generation, TokenEvent event,
                            const Sampler::Logprobs& logprobs) const;
  void finish(Answer& answer, FinishReason reason);
  void finish_all(FinishReason reason);
  void forget_finished();
  void leave_queue(ActiveRequest& request);
  void publish(Clock::time_point began, Clock::time_point ended);
  void check_invariants() const { blocks_.check(std::span<const Sequence* const>(scheduler_.running())); }

  Backend& backend_;
  const EngineOptions options_;
  const MemoryPlan plan_;
  const BatchLimits limits_;
  Mistral model_;
  KvCache cache_;
  Batch batch_;
  BlockManager blocks_;
  Scheduler scheduler_;
  Sampler sampler_;
  std::vector<float> logits_;                           // [max_logits, vocab] on the host
  std::vector<std::unique_ptr<ActiveRequest>> active_;  // queued and running
  uint64_t next_id_ = 0;
  EngineStats counts_;  // the engine thread's own; published after each step

  mutable std::mutex mutex_;  // all below
  std::condition_variable wake_;
  std::vector<std::unique_ptr<ActiveRequest>> inbox_;
  int32_t n_queued_ = 0;  // requests of which no row has been planned, and their prompts' tokens
  int64_t n_queued_tokens_ = 0;
  uint64_t n_refused_ = 0;
  StartTimes starts_;
  bool stopping_ = false, closed_ = false, busy_ = false;
  Clock::time_point progress_at_;  // the newest step's end, or when work came to an idle engine
  EngineStats stats_;
  std::mutex join_mutex_;
  std::thread thread_;
};

// --- any thread
// ---------------------------------------------------------------------------------------------------------------------

std::shared_ptr<Generation> Engine::Impl::submit(GenerateRequest request) {
  check_request(request, {.vocab_size = config().vocab_size, .max_model_len = plan_.max_model_len});
  std::unique_ptr<ActiveRequest> active = prepare(std::move(request));
  std::shared_ptr<Generation> generation = active->generation;
  {
    std::lock_guard lock(mutex_);
    if (stats_.failed)
      throw RequestError(503, "server_error", "", "The engine has stopped: " + stats_.failure,
                         "engine_failed");
    if (stopping_)
      throw RequestError(503, "server_error", "", "The server is shutting down.", "shutting_down");
    check_queue(*active);
    ++n_queued_;
    n_queued_tokens_ += active->n_prompt();
    inbox_.push_back(std::move(active));
    if (!busy_) progress_at_ = Clock::now();
    busy_ = true;
  }
  wake_.notify_one();
  return generation;
}

// Reserves all that the answers can become, so that the engine thread allocates nothing for them.
std::unique_ptr<ActiveRequest> Engine::Impl::prepare(GenerateRequest request) const {
  auto active = std::make_unique<ActiveRequest>();
  const SamplingParams& sampling = request.sampling;
  const size_t n = static_cast<size_t>(request.n), prompt = request.prompt.size(),
               most = static_cast<size_t>(sampling.max_tokens);
  const bool scores = sampling.prompt_logprobs >= 0;
  active->generation = std::make_shared<Generation>(request.n);
  active->generation->events.reserve((scores ? prompt : 0) + n * (most + 1));
  active->generation->top_storage.reserve(
      (scores ? prompt * static_cast<size_t>(sampling.prompt_logprobs) : 0) +
      n * most * static_cast<size_t>(std::max(sampling.logprobs, 0)));
  if (!sampling.ignore_eos) active->end_ids = config().eos_ids;
  std::erase_if(active->end_ids, [&](int32_t id) { return id < 0 || id >= config().vocab_size; });
  active->end_ids.insert(active->end_ids.end(), sampling.stop_token_ids.begin(),
                         sampling.stop_token_ids.end());

  active->answers.resize(n);
  for (size_t i = 0; i < n; ++i) {
    Answer& answer = active->answers[i];
    answer.owner = active.get();
    answer.index = static_cast<int32_t>(i);
    answer.priority = request.priority;
    answer.n_prompt = static_cast<int32_t>(prompt);
    answer.max_tokens = sampling.max_tokens;
    answer.scores_prompt = scores && i == 0;
    answer.group = n > 1 ? &active->group : nullptr;
    answer.tokens.reserve(prompt + most);
    answer.tokens = request.prompt;
    answer.blocks.reserve(static_cast<size_t>(BlockManager::blocks_for(static_cast<int32_t>(prompt + most))));
  }
  active->n_unfinished = request.n;
  active->request = std::move(request);
  active->submitted_at = Clock::now();
  return active;
}

// mutex_ is held.
void Engine::Impl::check_queue(const ActiveRequest& request) {
  const bool too_many = n_queued_ >= options_.max_queue;
  const bool too_long = n_queued_ > 0 && n_queued_tokens_ + request.n_prompt() > options_.max_queue_tokens;
  if (!too_many && !too_long) return;
  ++n_refused_;
  const std::string state = too_many ? std::to_string(n_queued_) + " requests"
                                     : std::to_string(n_queued_tokens_) + " prompt tokens";
  RequestError error(429, "rate_limit_error", "",
                     "The server is busy: " + state + " are waiting. Please retry later.",
                     "rate_limit_exceeded");
  // Half of the queue: who comes back at the first free place finds all the other refused ones there.
  const double rate = starts_.rate(Clock::now());
  error.retry_after_s =
      rate > 0 ? static_cast<int>(std::clamp(std::ceil(n_queued_ / 2.0 / rate), 1.0, 600.0)) : 1;
  throw error;
}

EngineStats Engine::Impl::stats() const {
  std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.refused = n_refused_;
  for (const auto& request : inbox_) {
    stats.waiting += request->request.n;
    stats.waiting_tokens += request->n_prompt();
  }
  if (busy_ && !stats.failed) stats.seconds_since_step = seconds_between(progress_at_, Clock::now());
  return stats;
}

void Engine::Impl::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

// --- engine thread
// ------------------------------------------------------------------------------------------------------------------

void Engine::Impl::run() {
  FinishReason reason = FinishReason::cancelled;
  try {
    while (wait_for_work()) step();
  } catch (const std::exception& error) {
    spdlog::critical("the engine thread ends: {}", error.what());
    reason = FinishReason::error;
    counts_.failed = true;
    counts_.failure = error.what();
    std::lock_guard lock(mutex_);
    stats_ = counts_;
  }
  finish_all(reason);
}

// Takes what was submitted. False: stop.
bool Engine::Impl::wait_for_work() {
  std::unique_lock lock(mutex_);
  if (active_.empty() && inbox_.empty() && !stopping_) {
    busy_ = false;
    lock.unlock();
    CHECK_EQ(scheduler_.running().size() + scheduler_.waiting().size(), size_t{0});
    check_invariants();
    lock.lock();
    wake_.wait(lock, [this] { return stopping_ || !inbox_.empty(); });
  }
  for (auto& request : inbox_) take(std::move(request));
  inbox_.clear();
  return !stopping_;
}

void Engine::Impl::take(std::unique_ptr<ActiveRequest> request) {
  const uint64_t root =
      options_.prefix_cache ? blocks_.root_of(request->request.cache_salt) : blocks_.new_root();
  for (Answer& answer : request->answers) {
    answer.id = next_id_++;
    answer.cache_root = root;
    scheduler_.add(&answer);
  }
  active_.push_back(std::move(request));
}

void Engine::Impl::drop_cancelled(Clock::time_point now) {
  for (const auto& active : active_) {
    const bool late = active->request.deadline && now >= *active->request.deadline;
    const bool gone = active->generation->cancelled.load(std::memory_order_relaxed);
    const bool waited = options_.queue_timeout > 0 && !active->started &&
                        seconds_between(active->submitted_at, now) > options_.queue_timeout;
    for (Answer& answer : active->answers) {
      if (answer.finished) continue;
      if (gone || active->generation->sequence_cancelled[answer.index].load(std::memory_order_relaxed)) {
        finish(answer, FinishReason::cancelled);
      } else if (late) {
        finish(answer, FinishReason::deadline);
      } else if (waited) {
        finish(answer, FinishReason::queue_timeout);
      }
    }
  }
  forget_finished();
}

void Engine::Impl::step() {
  const Clock::time_point began = Clock::now();
  drop_cancelled(began);
  if (active_.empty()) return publish(began, began);
  const SchedulePlan& plan = scheduler_.plan();
  account_start(plan);
  const std::span<const float> logits = compute(plan);
  account(plan, logits);
  publish(began, Clock::now());
}

std::span<const float> Engine::Impl::compute(const SchedulePlan& plan) {
  CHECK(!plan.chunks.empty(), "a step with work has something to compute");
  batch_.clear();
  int32_t n_logits = 0;
  for (const Chunk& chunk : plan.chunks) {
    const Sequence& sequence = *chunk.sequence;
    const int32_t end = sequence.n_computed + chunk.n_tokens;
    for (int32_t block = sequence.n_computed / kBlockTokens; block < BlockManager::blocks_for(end); ++block) {
      CHECK(blocks_.is_own(sequence.blocks[block]), "a block that is written has one owner");
    }
    batch_.add(std::span(sequence.tokens).subspan(sequence.n_computed, chunk.n_tokens), sequence.n_computed,
               sequence.blocks, chunk.n_logits);
    n_logits += chunk.n_logits;
  }
  const TensorView result = model_.forward(batch_.upload(), cache_);
  const std::span<float> logits(logits_.data(),
                                static_cast<size_t>(n_logits) * static_cast<size_t>(config().vocab_size));
  // Also without logits: the step is over, and its errors known, once something came back.
  backend_.download(result.data, std::as_writable_bytes(logits));
  return logits;
}

void Engine::Impl::account(const SchedulePlan& plan, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(config().vocab_size);
  for (const Chunk& chunk : plan.chunks) {
    Answer& answer = answer_of(chunk.sequence);
    const size_t n_rows = static_cast<size_t>(chunk.n_logits);
    const std::span<const float> rows = logits.first(n_rows * vocab);
    logits = logits.subspan(n_rows * vocab);
    report_scores(chunk, rows);
    if (answer.finished) continue;  // a score that is not finite
    counts_.recomputed_tokens += std::clamp(answer.n_ever_computed - answer.n_computed, 0, chunk.n_tokens);
    scheduler_.advance(chunk);
    if (chunk.samples) {
      sample(answer, rows.last(vocab));
    } else if (answer.max_tokens == 0 && answer.n_computed == answer.length()) {
      finish(answer, FinishReason::length);
    }
  }
  forget_finished();
}

void Engine::Impl::account_start(const SchedulePlan& plan) {
  counts_.preemptions += plan.preempted.size();
  for (Sequence* sequence : plan.admitted) {
    ActiveRequest& active = *answer_of(sequence).owner;
    if (active.started) continue;
    leave_queue(active);
    active.started_at = Clock::now();
    active.generation->timings.cached_tokens = sequence->n_from_cache;
    counts_.prompt_tokens += static_cast<uint64_t>(sequence->n_prompt);
    counts_.cached_prompt_tokens += static_cast<uint64_t>(sequence->n_from_cache);
    std::lock_guard lock(mutex_);
    starts_.add(active.started_at);
  }
}

// Prompt rows: row r tells how likely the prompt's token r + 1 was.
void Engine::Impl::report_scores(const Chunk& chunk, std::span<const float> rows) {
  Answer& answer = answer_of(chunk.sequence);
  const auto vocab = static_cast<size_t>(config().vocab_size);
  const int32_t n_scores = chunk.n_logits - (chunk.samples ? 1 : 0);
  const int32_t first_row = answer.n_computed + chunk.n_tokens - chunk.n_logits;
  Generation& generation = *answer.owner->generation;
  for (int32_t i = 0; i < n_scores; ++i) {
    const int32_t token = answer.tokens[first_row + i + 1];
    const auto scores = sampler_.logprobs(rows.subspan(i * vocab, vocab), token,
                                          answer.owner->request.sampling.prompt_logprobs);
    if (!scores) {
      spdlog::error("request {}: a logit at position {} is not finite", answer.owner->request.id,
                    first_row + i);
      return finish(answer, FinishReason::error);
    }
    TokenEvent event{.kind = TokenEvent::Kind::prompt_logprob, .index = answer.index, .token = token};
    generation.events.push(event_with_top(generation, event, *scores));
  }
}

void Engine::Impl::sample(Answer& answer, std::span<const float> logits) {
  const ActiveRequest& active = *answer.owner;
  const SamplingParams& sampling = active.request.sampling;
  const bool may_end = answer.n_output() >= sampling.min_tokens;
  const auto token = sampler_.sample(
      logits, {.params = sampling,
               .tokens = answer.tokens,
               .n_prompt = answer.n_prompt,
               .masked = may_end ? std::span<const int32_t>{} : std::span<const int32_t>(active.end_ids),
               .seed = sampling.seed + static_cast<uint64_t>(answer.index)});
  if (!token) {
    spdlog::error(
        "request {}: no token can be sampled at position {}: a logit is not finite or every id is masked",
        active.request.id, answer.length());
    return finish(answer, FinishReason::error);
  }
  if (std::find(active.end_ids.begin(), active.end_ids.end(), *token) != active.end_ids.end())
    return finish(answer, FinishReason::stop);
  send_token(answer, *token, logits);
  if (answer.n_output() == answer.max_tokens) finish(answer, FinishReason::length);
}

void Engine::Impl::send_token(Answer& answer, int32_t token, std::span<const float> logits) {
  ActiveRequest& active = *answer.owner;
  Generation& generation = *active.generation;
  answer.tokens.push_back(token);
  ++counts_.generated_tokens;
  if (!active.has_token) active.first_token_at = Clock::now();
  active.has_token = true;
  TokenEvent event{.kind = TokenEvent::Kind::token, .index = answer.index, .token = token};
  if (const int32_t k = active.request.sampling.logprobs; k >= 0) {
    event = event_with_top(generation, event,
                           *sampler_.logprobs(logits, token, k));  // finite: it has just been sampled from
  }
  generation.events.push(event);
}

TokenEvent Engine::Impl::event_with_top(Generation& generation, TokenEvent event,
                                        const Sampler::Logprobs& logprobs) const {
  std::vector<TokenLogprob>& storage = generation.top_storage;
  CHECK_LE(storage.size() + logprobs.top.size(),
           storage.capacity());  // events point into it: it must not move
  event.logprob = logprobs.logprob;
  event.n_top = static_cast<int16_t>(logprobs.top.size());
  event.top = storage.data() + storage.size();
  storage.insert(storage.end(), logprobs.top.begin(), logprobs.top.end());
  return event;
}

void Engine::Impl::finish(Answer& answer, FinishReason reason) {
  ActiveRequest& active = *answer.owner;
  scheduler_.finish(&answer);
  answer.finished = true;
  switch (reason) {
    case FinishReason::stop:
      ++counts_.finished_stop;
      break;
    case FinishReason::length:
      ++counts_.finished_length;
      break;
    case FinishReason::cancelled:
      ++counts_.cancelled;
      break;
    case FinishReason::deadline:
      ++counts_.deadline_passed;
      break;
    case FinishReason::queue_timeout:
      ++counts_.queue_timeouts;
      break;
    case FinishReason::error:
      ++counts_.errors;
      break;
    case FinishReason::none:
      CHECK(false, "an answer finishes for a reason");
      break;
  }
  if (--active.n_unfinished == 0) {
    const Clock::time_point now = Clock::now();
    const Clock::time_point started = active.started ? active.started_at : now;
    const Clock::time_point first = active.has_token ? active.first_token_at : now;
    RequestTimings& timings = active.generation->timings;
    timings.queue_s = seconds_between(active.submitted_at, started);
    timings.prefill_s = seconds_between(started, first);
    timings.decode_s = seconds_between(first, now);
    leave_queue(active);
  }
  active.generation->events.push(
      {.kind = TokenEvent::Kind::finished, .finish = reason, .index = answer.index});
}

void Engine::Impl::leave_queue(ActiveRequest& active) {
  if (active.started) return;
  active.started = true;
  std::lock_guard lock(mutex_);
  --n_queued_;
  n_queued_tokens_ -= active.n_prompt();
}

void Engine::Impl::forget_finished() {
  std::erase_if(active_, [](const auto& active) { return active->n_unfinished == 0; });
}

// The thread's last act: nobody waits for an event that never comes.
void Engine::Impl::finish_all(FinishReason reason) {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;  // submit refuses from here on
    for (auto& request : inbox_) take(std::move(request));
    inbox_.clear();
  }
  for (const auto& active : active_) {
    for (Answer& answer : active->answers) {
      if (!answer.finished) finish(answer, reason);
    }
  }
  forget_finished();
  const Clock::time_point now = Clock::now();
  publish(now, now);
  std::lock_guard lock(mutex_);
  busy_ = false;
}

void Engine::Impl::publish(Clock::time_point began, Clock::time_point ended) {
#ifdef NDEBUG
  const bool check_now = options_.check_invariants;
#else
  const bool check_now = true;
#endif
  if (check_now) check_invariants();
  counts_.running = static_cast<int32_t>(scheduler_.running().size());
  counts_.waiting = static_cast<int32_t>(scheduler_.waiting().size());
  counts_.waiting_tokens = 0;
  for (const Sequence* sequence : scheduler_.waiting()) counts_.waiting_tokens += sequence->length();
  counts_.kv_blocks_used = plan_.kv_blocks - blocks_.n_available();
  counts_.kv_blocks_total = plan_.kv_blocks;
  if (ended > began) {
    ++counts_.steps;
    counts_.last_step_seconds = seconds_between(began, ended);
  }
  std::lock_guard lock(mutex_);
  stats_ = counts_;
  progress_at_ = ended;
}

// --- the public face
// ----------------------------------------------------------------------------------------------------------------

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
