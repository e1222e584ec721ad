// ActiveRequest: a request from the moment it is accepted until its last answer is finished, with the n
// sequences that answer it. Plain data: made by the submitting thread, then the engine thread's alone.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "config/model_config.h"
#include "engine/request.h"
#include "engine/sequence.h"

namespace tramontane {

using SteadyTime = std::chrono::steady_clock::time_point;

inline double seconds_between(SteadyTime from, SteadyTime to) {
  return std::chrono::duration<double>(to - from).count();
}

struct ActiveRequest;

// One of a request's n sequences, as the engine sees it.
struct ActiveSequence : Sequence {
  ActiveRequest* owner = nullptr;
  int32_t index = 0;
  bool finished = false;
  // Where the backend samples: the row of the newest step's ids that holds the newest token, while that is
  // not known; and whether the device has counted the tokens since the sequence was admitted.
  int32_t drawn_row = -1;
  bool counted = false;
};

// Every sequence that the engine hands to the scheduler is an ActiveSequence.
inline ActiveSequence& as_active(Sequence* sequence) {
  return static_cast<ActiveSequence&>(*sequence);
}

struct ActiveRequest {
  GenerateRequest request;
  std::shared_ptr<Generation> generation;
  std::vector<ActiveSequence> answers;  // [n]
  SequenceGroup group;
  // What ends an answer: the model's own ids unless ignored, and the request's. Sorted, without duplicates,
  // like request.sampling.logit_bias by id.
  std::vector<int32_t> end_ids;
  int32_t n_unfinished = 0;
  int32_t n_in_flight = 0;  // chunks of its answers that are launched and not accounted for
  bool started = false;     // a row of it has been planned: it no longer counts as queued
  bool has_token = false;
  SteadyTime submitted_at, started_at, first_token_at;

  // Nothing refers to it any more.
  bool is_over() const { return n_unfinished == 0 && n_in_flight == 0; }
  int64_t n_prompt() const { return static_cast<int64_t>(request.prompt.size()); }
};

// A checked request with all the memory that its answers can come to need, so that the engine thread
// allocates nothing for them.
std::unique_ptr<ActiveRequest> make_active_request(GenerateRequest request, const ModelConfig& config);

}  // namespace tramontane
