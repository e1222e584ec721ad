#include "evaluation/model_runner.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "engine/batch.h"

namespace tramontane {
namespace {

constexpr int32_t kMaxSequences = 32;   // that run in one step
constexpr int32_t kStepRows = 512;      // rows of one step
constexpr int32_t kStepLogits = 128;    // rows of logits of one step
constexpr int32_t kCacheTokens = 8192;  // keys and values held, or one text's where that is longer

int32_t blocks_for(size_t tokens) {
  return static_cast<int32_t>((tokens + kBlockTokens - 1) / kBlockTokens);
}

void check_memory(const Backend& backend, const Checkpoint& checkpoint, const std::string& name,
                  const BatchLimits& limits, int32_t longest, int32_t n_blocks) {
  const ModelConfig& config = checkpoint.config();
  const AttentionShape shape{config.n_heads, config.n_kv_heads, config.head_dim, 0};
  const StepLimits step{
      .max_tokens = limits.max_tokens, .max_sequences = limits.max_sequences, .max_kv = longest};
  const uint64_t needed =
      Mistral::weight_bytes(backend, checkpoint) +
      Mistral::workspace_bytes(config, limits, longest, backend.act_dtype()) +
      backend.step_memory(step, shape).scratch +
      uint64_t{KvCache::page_bytes(shape, backend.act_dtype())} * config.n_layers * n_blocks;
  const uint64_t available = backend.memory().bytes;
  if (available == 0 || needed <= available) return;
  throw std::runtime_error(name + ": needs " + std::to_string(needed >> 20) + " MiB of memory, " +
                           std::to_string(available >> 20) + " MiB are available");
}

}  // namespace

int32_t argmax(std::span<const float> values) {
  return static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

void check_positions(const ModelConfig& config, const std::string& name, int32_t longest) {
  if (longest <= config.max_position) return;
  throw std::runtime_error(name + ": takes " + std::to_string(config.max_position) +
                           " tokens, the longest prompt and answer have " + std::to_string(longest));
}

ModelRunner::ModelRunner(Backend& backend, const Checkpoint& checkpoint, std::string name, int32_t longest,
                         const std::function<void(uint64_t, uint64_t)>& progress)
    : backend_(backend),
      name_(std::move(name)),
      end_ids_(checkpoint.config().eos_ids),
      max_rows_(kStepRows),
      max_logits_(kStepLogits) {
  const ModelConfig& config = checkpoint.config();
  check_positions(config, name_, longest);
  const int32_t longest_blocks = blocks_for(longest);
  const int32_t n_blocks =
      std::max(longest_blocks, std::min(kMaxSequences * longest_blocks, kCacheTokens / kBlockTokens));
  const BatchLimits limits{.max_tokens = max_rows_,
                           .max_sequences = kMaxSequences,
                           .max_logits = max_logits_,
                           .max_blocks = longest_blocks};
  check_memory(backend, checkpoint, name_, limits, longest, n_blocks);
  model_ = std::make_unique<Mistral>(backend, checkpoint, limits, longest, progress);
  cache_ = std::make_unique<KvCache>(backend, model_->attention_shape(), config.n_layers, n_blocks);
  batch_ = std::make_unique<Batch>(backend, limits);
  logits_.resize(static_cast<size_t>(max_logits_) * config.vocab_size);
}

size_t ModelRunner::group_end(size_t first, size_t count, const std::function<size_t(size_t)>& room) const {
  int32_t blocks = 0;
  size_t end = first;
  while (end < count && end - first < kMaxSequences) {
    blocks += blocks_for(room(end));
    if (blocks > cache_->n_blocks() && end > first) break;
    ++end;
  }
  return end;
}

ModelRunner::Sequence ModelRunner::start(size_t text, std::span<const int32_t> ids, size_t room,
                                         int32_t& next_block) const {
  Sequence sequence{.text = text, .ids = {ids.begin(), ids.end()}, .blocks = {}};
  sequence.blocks.resize(blocks_for(room));
  std::iota(sequence.blocks.begin(), sequence.blocks.end(), next_block);
  next_block += static_cast<int32_t>(sequence.blocks.size());
  return sequence;
}

void ModelRunner::run_batch(std::vector<Row>& rows, const RowSink& sink) {
  const TensorView result = model_->forward(batch_->upload(), *cache_);
  const auto vocab = static_cast<size_t>(vocab_size());
  const std::span<float> logits = std::span(logits_).first(rows.size() * vocab);
  if (!rows.empty()) backend_.download(result.data, std::as_writable_bytes(logits));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto row = logits.subspan(i * vocab, vocab);
    if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
      throw std::runtime_error(name_ + ": a logit is not a finite number (text " +
                               std::to_string(rows[i].text) + ", position " + std::to_string(rows[i].row) +
                               ")");
    }
    sink(rows[i].text, rows[i].row, row);
  }
  rows.clear();
  batch_->clear();
}

void ModelRunner::advance(std::span<Sequence> sequences, const RowSink& sink) {
  std::vector<Row> rows;
  int32_t used = 0;
  batch_->clear();
  const auto flush = [&] {
    if (used > 0) run_batch(rows, sink);
    used = 0;
  };
  for (Sequence& s : sequences) {
    const auto length = static_cast<int32_t>(s.ids.size());
    while (s.computed < length) {
      const int32_t before = std::max(0, s.first_row - s.computed);  // rows without logits
      const int32_t logits_left = max_logits_ - static_cast<int32_t>(rows.size());
      const int32_t chunk = std::min({length - s.computed, max_rows_ - used, before + logits_left});
      if (chunk <= 0) {
        flush();
        continue;
      }
      const int32_t wanted = std::max(0, chunk - before);
      batch_->add(std::span(s.ids).subspan(s.computed, chunk), s.computed, s.blocks, wanted);
      s.computed += chunk;
      used += chunk;
      for (int32_t row = s.computed - wanted; row < s.computed; ++row) rows.push_back({s.text, row});
      if (s.computed < length) flush();  // a sequence stands in a batch once
    }
  }
  flush();
}

void ModelRunner::score(std::span<const ScoringTask> tasks, const RowSink& sink, const DoneSink& done) {
  const auto room = [&](size_t i) { return tasks[i].ids.size(); };
  for (size_t first = 0; first < tasks.size();) {
    const size_t end = group_end(first, tasks.size(), room);
    std::vector<Sequence> group;
    int32_t next_block = 0;
    for (size_t i = first; i < end; ++i) {
      group.push_back(start(i, tasks[i].ids, room(i), next_block));
      group.back().first_row = tasks[i].first_row;
    }
    advance(group, sink);
    first = end;
    if (done) done(first);
  }
}

std::vector<std::vector<int32_t>> ModelRunner::continue_greedily(std::span<const GreedyTask> tasks,
                                                                 const DoneSink& done) {
  std::vector<std::vector<int32_t>> answers(tasks.size());
  const auto room = [&](size_t i) { return tasks[i].ids.size() + static_cast<size_t>(tasks[i].max_tokens); };
  const auto ended = [&](const Sequence& s) {
    const auto& answer = answers[s.text];
    return std::ssize(answer) >= tasks[s.text].max_tokens ||
           std::find(end_ids_.begin(), end_ids_.end(), answer.back()) != end_ids_.end();
  };
  for (size_t first = 0; first < tasks.size();) {
    const size_t end = group_end(first, tasks.size(), room);
    std::vector<Sequence> group;
    int32_t next_block = 0;
    for (size_t i = first; i < end; ++i) group.push_back(start(i, tasks[i].ids, room(i), next_block));
    while (!group.empty()) {
      for (Sequence& s : group) s.first_row = static_cast<int32_t>(s.ids.size()) - 1;
      advance(group, [&](size_t text, int32_t, std::span<const float> logits) {
        answers[text].push_back(argmax(logits));
      });
      std::erase_if(group, ended);
      for (Sequence& s : group) s.ids.push_back(answers[s.text].back());
      if (done) done(end - group.size());
    }
    first = end;
  }
  return answers;
}

}  // namespace tramontane
