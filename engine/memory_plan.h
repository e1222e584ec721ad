// EngineOptions, and MemoryPlan: what an engine with these options will take, settled before anything is
// allocated. Pure functions.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "config/model_config.h"
#include "engine/backend/backend.h"
#include "engine/batch.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

struct EngineOptions {
  int32_t max_model_len =
      0;  // prompt + answer; 0: the model's own maximum, or less when memory does not allow it
  int32_t max_sequences = 64;            // that run in one step
  int32_t step_tokens = 512;             // token budget of a step
  uint64_t kv_cache_bytes = 0;           // 0: from the available memory
  int32_t max_queue = 1024;              // requests that wait
  int64_t max_queue_tokens = 1'000'000;  // prompt tokens that wait; one longer prompt may wait alone
  double queue_timeout = 0;              // seconds a request may wait for its first step; 0: no limit
  bool prefix_cache = true;              // false: only the sequences of one request share blocks
  bool check_invariants = false;  // after every step (debug builds always do) instead of only when idle
  // Called once by the engine thread when it ends by an error, after every request has its finishing event.
  std::function<void()> on_failure = {};
};

// Printed at start. Bytes.
struct MemoryPlan {
  uint64_t weight_bytes = 0, workspace_bytes = 0, graph_bytes = 0, kv_bytes = 0;
  uint64_t available_bytes = 0;  // 0: unknown
  int32_t kv_blocks = 0, max_model_len = 0;
  // "weights 135.2 MiB, workspace 40.1 MiB, KV cache 720.0 MiB (2048 blocks, 32768 tokens); 895.3 MiB of 23.1
  // GiB available; at most 8192 tokens a request"
  std::string to_string() const;
};

// Throws std::runtime_error, naming the option to change, when an option is out of range or the whole does
// not fit into the budget. `weight_bytes`: as uploaded. `step`: what the backend takes for steps of these
// options.
MemoryPlan plan_memory(const ModelConfig& config, uint64_t weight_bytes, DType act_dtype,
                       const EngineOptions& options, const MemoryBudget& budget, const StepMemory& step = {});
// The same for a checkpoint on a backend.
MemoryPlan plan_memory(const Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options);

// Rows whose logits one step gives: one for each sequence, and enough to score prompts at a fair speed.
int32_t max_logits_of(const EngineOptions& options);
BatchLimits batch_limits_of(const EngineOptions& options, int32_t max_model_len);

}  // namespace tramontane
