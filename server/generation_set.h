// GenerationSet: the engine's generations of one HTTP request (several when a completion has several
// prompts), read by one thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "engine/engine.h"
#include "engine/request.h"

namespace tramontane {

class GenerationSet {
 public:
  struct Event {
    size_t prompt = 0;
    TokenEvent event;
  };

  // Submits all or, when the engine refuses one (RequestError), none.
  GenerationSet(Engine& engine, std::vector<GenerateRequest> requests);
  // For tests: generations that somebody else fills, each with `n` sequences.
  GenerationSet(std::vector<std::shared_ptr<Generation>> generations, int32_t n);
  // Cancels what has not finished.
  ~GenerationSet();
  GenerationSet(const GenerationSet&) = delete;
  GenerationSet& operator=(const GenerationSet&) = delete;

  // The next event of any of them; nothing when `timeout` passes first. Not to be called when done().
  std::optional<Event> next(std::chrono::milliseconds timeout);
  // Every sequence has had its finishing event.
  bool done() const { return open_.empty(); }
  void cancel_sequence(size_t prompt, int32_t index);
  // Queue, prefill and decode: the longest of each. cached_tokens: the sum. Once done().
  RequestTimings timings() const;

 private:
  void count(const Event& event);

  std::vector<std::shared_ptr<Generation>> generations_;
  std::vector<int32_t> unfinished_;  // sequences of each generation
  std::vector<size_t> open_;         // generations with unfinished sequences
  size_t turn_ = 0;                  // the one of open_ to look at first
};

}  // namespace tramontane
