// Logits of every position of a text, without scheduler or sampler: what `tramontane logits` and the golden
// tests measure. Calls the backend on the calling thread; not beside a running engine.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

// Takes FP32 logits [rows, vocab_size] of positions first_row, first_row + 1, …; the span is valid during the
// call.
using LogitsSink = std::function<void(int32_t first_row, std::span<const float> logits)>;

// Runs `ids` through the model in steps of at most chunk_tokens rows. Throws std::runtime_error when ids are
// empty, out of the vocabulary or longer than the model's max_position.
void score(Backend& backend, const Checkpoint& checkpoint, std::span<const int32_t> ids, int32_t chunk_tokens,
           const LogitsSink& sink);

// The same for several texts with one loading of the weights.
void score_all(
    Backend& backend, const Checkpoint& checkpoint, std::span<const std::vector<int32_t>> texts,
    int32_t chunk_tokens,
    const std::function<void(size_t text, int32_t first_row, std::span<const float> logits)>& sink);

}  // namespace tramontane
