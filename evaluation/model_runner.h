// ModelRunner: one loaded model that continues texts greedily and scores given ones, many sequences a step,
// without scheduler or sampler. One thread; not beside a running engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/batch.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

// A text whose logits are wanted from row first_row (the row of token ids[first_row], which predicts the
// next) to its end.
struct ScoringTask {
  std::vector<int32_t> ids;
  int32_t first_row = 0;
};

// A text to continue by at most max_tokens likeliest tokens, 1 or more.
struct GreedyTask {
  std::vector<int32_t> ids;
  int32_t max_tokens = 0;
};

class ModelRunner {
 public:
  // FP32 logits [vocab_size] of one row; the span is valid during the call. Rows of a text come in order.
  using RowSink = std::function<void(size_t text, int32_t row, std::span<const float> logits)>;
  using DoneSink = std::function<void(size_t finished)>;  // texts finished so far

  // Loads the weights; texts may have up to `longest` tokens. Throws std::runtime_error when the model's
  // positions or the host's memory do not reach so far. `name` is for errors.
  ModelRunner(Backend& backend, const Checkpoint& checkpoint, std::string name, int32_t longest,
              const std::function<void(uint64_t done, uint64_t total)>& progress = {});

  // Throws std::runtime_error when a logit is not a finite number.
  void score(std::span<const ScoringTask> tasks, const RowSink& sink, const DoneSink& done = {});
  // The new tokens of each text: up to and including the first end-of-sequence id. Of equal logits the lowest
  // id wins.
  std::vector<std::vector<int32_t>> continue_greedily(std::span<const GreedyTask> tasks,
                                                      const DoneSink& done = {});

  int32_t vocab_size() const { return model_->config().vocab_size; }

 private:
  struct Sequence {
    size_t text = 0;  // index of its task
    std::vector<int32_t> ids;
    int32_t computed = 0;   // tokens whose k and v are in the cache
    int32_t first_row = 0;  // of the wanted logits
    std::vector<int32_t> blocks;
  };
  struct Row {
    size_t text;
    int32_t row;
  };

  // Computes what is not computed of each sequence and hands out the wanted rows.
  void advance(std::span<Sequence> sequences, const RowSink& sink);
  void run_batch(std::vector<Row>& rows, const RowSink& sink);
  // The next texts, from `first` on, that fit into the cache together; room(i): most tokens of text i.
  size_t group_end(size_t first, size_t count, const std::function<size_t(size_t)>& room) const;
  Sequence start(size_t text, std::span<const int32_t> ids, size_t room, int32_t& next_block) const;

  Backend& backend_;
  std::string name_;
  std::vector<int32_t> end_ids_;
  int32_t max_rows_ = 0, max_logits_ = 0;
  std::unique_ptr<Mistral> model_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Batch> batch_;
  std::vector<float> logits_;
};

// Throws std::runtime_error naming both numbers when a text of `longest` tokens has more than the model's
// positions.
void check_positions(const ModelConfig& config, const std::string& name, int32_t longest);

// The index of the largest value, the lowest of equal ones. `values` is not empty.
int32_t argmax(std::span<const float> values);

}  // namespace tramontane
