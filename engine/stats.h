// EngineStats: a snapshot of the engine's counters, taken by any thread; counters only grow, gauges say
// "now".
#pragma once

#include <cstdint>
#include <string>

namespace tramontane {

struct EngineStats {
  // Gauges.
  int32_t running = 0, waiting = 0;
  int64_t waiting_tokens = 0;
  int32_t kv_blocks_used = 0, kv_blocks_total = 0;
  // Counters.
  uint64_t steps = 0, prompt_tokens = 0, generated_tokens = 0, cached_prompt_tokens = 0,
           recomputed_tokens = 0;
  uint64_t preemptions = 0, finished_stop = 0, finished_length = 0, cancelled = 0, refused = 0,
           deadline_passed = 0, queue_timeouts = 0, errors = 0;
  double last_step_seconds = 0;   // length of the newest step
  double seconds_since_step = 0;  // with work queued: the watchdog's clock; 0 when idle
  bool failed = false;            // the engine thread ended by an error; failure says which
  std::string failure;
};

}  // namespace tramontane
