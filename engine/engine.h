// Engine: owns the model, its KV cache and the scheduler, and the one thread that runs them.
// submit, stats and stop may be called from any thread; everything else happens on the engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/backend/backend.h"
#include "engine/memory_plan.h"
#include "engine/request.h"
#include "engine/stats.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

class Engine {
 public:
  // Loads the weights through `backend` (which must outlive the engine) and starts the engine thread.
  // `progress(done, total)` is called with bytes of weights loaded, on the calling thread.
  // Throws std::runtime_error when the plan does not fit, naming the option to change.
  Engine(Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options,
         const std::function<void(uint64_t done, uint64_t total)>& progress = {});
  ~Engine();  // stop()

  // Checks ranges (RequestError 400), room (context_length_exceeded) and the queue's bounds (429 with
  // retry_after_s), then queues.
  std::shared_ptr<Generation> submit(GenerateRequest request);
  EngineStats stats() const;
  // Finishes every queued and running sequence with FinishReason::cancelled and joins the thread. Idempotent.
  void stop();

  const MemoryPlan& plan() const;
  int32_t max_model_len() const;
  int32_t vocab_size() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tramontane
