// Accounting: what a step's results mean for the requests: tokens appended, events sent, answers finished,
// everything counted. It decides nothing about the next step and touches no backend. Engine thread only.
#pragma once

#include <cstdint>
#include <span>

#include "engine/active_request.h"
#include "engine/inbox.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/stats.h"
#include "engine/step.h"

namespace tramontane {

class Accounting {
 public:
  // All three must outlive it. The sampler is asked for log probabilities only; it has sampled already.
  Accounting(int32_t vocab_size, Scheduler& scheduler, Sampler& sampler, Inbox& inbox)
      : vocab_(static_cast<size_t>(vocab_size)), scheduler_(scheduler), sampler_(sampler), inbox_(inbox) {}

  // Before the step: its admitted requests have left the queue.
  void begin(const SchedulePlan& plan);
  // After its launch: the next plan may build on it.
  void launched(const Step& step);
  // After it has been waited for.
  void account(const Step& step);
  // The answer's one finishing event, the last thing that the client hears of it. It also leaves the
  // scheduler.
  void finish(ActiveSequence& answer, FinishReason reason);

  // The engine adds the gauges of a step and publishes them.
  EngineStats counts;

 private:
  void report_scores(const Chunk& chunk, std::span<const float> rows);
  void take_token(ActiveSequence& answer, const ChunkResult& result);
  void send_token(ActiveSequence& answer, int32_t token, std::span<const float> logits);
  void fail(ActiveSequence& answer);
  void close(ActiveRequest& request);

  const size_t vocab_;
  Scheduler& scheduler_;
  Sampler& sampler_;
  Inbox& inbox_;
};

}  // namespace tramontane
