// Step: one step from its launch until its results are accounted for. Plain data. Engine thread only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/scheduler.h"

namespace tramontane {

// What came of a chunk.
struct ChunkResult {
  // FP32 [n_logits, vocab] on the host; empty when nothing there asks for them (step_runner.h, wants_logits).
  std::span<const float> logits;
  std::optional<int32_t> token;  // what was sampled; nothing when no token can be
};

struct Step {
  std::vector<Chunk> chunks;         // the plan's
  std::vector<ChunkResult> results;  // [chunks]; tokens are known once the step has been waited for
  int place = 0;                     // where its ids come back (Backend::start_read)
  bool needs_logits = false;  // some chunk wants logits on the host: they stay valid until the next launch
};

}  // namespace tramontane
