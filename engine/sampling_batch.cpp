#include "engine/sampling_batch.h"

#include <algorithm>
#include <limits>

#include "engine/backend/check.h"
#include "engine/request_checks.h"

namespace tramontane {
namespace {

// Most adjustments of a row: its request's biases, its stop ids, and the model's own.
constexpr size_t kMaxBiases = kMaxLogitBias + kMaxStopIds + 64;

struct Sizes {
  size_t rows, biases, counts, ids, text;
};

Sizes sizes_of(const BatchLimits& limits, int32_t vocab_size) {
  const auto sequences = static_cast<size_t>(limits.max_sequences);
  return {.rows = sequences * sizeof(SamplingRow),
          .biases = sequences * kMaxBiases * sizeof(LogitBias),
          .counts = sequences * static_cast<size_t>(vocab_size) * sizeof(int32_t),
          .ids = sequences * sizeof(int32_t),
          .text = static_cast<size_t>(limits.max_blocks) * kBlockTokens * sizeof(int32_t)};
}

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0f || params.presence_penalty != 0.0f ||
         params.frequency_penalty != 0.0f;
}

}  // namespace

uint64_t SamplingBatch::workspace_bytes(const BatchLimits& limits, int32_t vocab_size) {
  const Sizes sizes = sizes_of(limits, vocab_size);
  return sizes.rows + sizes.biases + sizes.counts + sizes.ids + sizes.text;
}

SamplingBatch::SamplingBatch(Backend& backend, const BatchLimits& limits, int32_t vocab_size)
    : backend_(backend), max_sequences_(limits.max_sequences), vocab_size_(vocab_size) {
  const Sizes sizes = sizes_of(limits, vocab_size);
  device_rows_ = backend.allocate(sizes.rows, "sampling rows");
  device_biases_ = backend.allocate(sizes.biases, "sampling biases");
  counts_ = backend.allocate(sizes.counts, "token counts");
  device_ids_ = backend.allocate(sizes.ids, "sampled ids");
  text_ = backend.allocate(sizes.text, "text to count");
  rows_.reserve(static_cast<size_t>(max_sequences_));
  biases_.reserve(static_cast<size_t>(max_sequences_) * kMaxBiases);
  ids_ = device_ids_.view(DType::i32, 1, 0);
}

TensorView SamplingBatch::counts() const {
  return counts_.view(DType::i32, max_sequences_, vocab_size_);
}

void SamplingBatch::clear() {
  rows_.clear();
  biases_.clear();
}

void SamplingBatch::add(ActiveSequence& sequence, int32_t logits_row) {
  const SamplingParams& params = sequence.owner->request.sampling;
  CHECK_LT(n_rows(), max_sequences_);
  SamplingRow row;
  row.seed = params.seed + static_cast<uint64_t>(sequence.index);
  row.position = static_cast<uint64_t>(sequence.length());
  row.logits_row = logits_row;
  row.temperature = params.temperature;
  row.top_p = params.top_p;
  row.min_p = params.min_p;
  row.top_k = params.top_k;
  if (has_penalties(params)) {
    if (!sequence.counted) count_tokens(sequence);
    row.counts_row = sequence.slot;
    row.repetition_penalty = params.repetition_penalty;
    row.presence_penalty = params.presence_penalty;
    row.frequency_penalty = params.frequency_penalty;
  }
  add_biases(sequence, row);
  rows_.push_back(row);
}

// Both lists are sorted and without duplicates. What may not be sampled needs no bias.
void SamplingBatch::add_biases(const ActiveSequence& sequence, SamplingRow& row) {
  const ActiveRequest& active = *sequence.owner;
  const std::vector<int32_t>& end_ids = active.end_ids;
  const bool may_end = sequence.n_output() >= active.request.sampling.min_tokens;
  row.first_bias = static_cast<int32_t>(biases_.size());
  if (!may_end) {
    for (const int32_t id : end_ids) biases_.push_back({id, -std::numeric_limits<float>::infinity()});
  }
  for (const auto& [id, bias] : active.request.sampling.logit_bias) {
    if (may_end || !std::binary_search(end_ids.begin(), end_ids.end(), id)) biases_.push_back({id, bias});
  }
  row.n_biases = static_cast<int32_t>(biases_.size()) - row.first_bias;
  CHECK_LE(biases_.size(), static_cast<size_t>(max_sequences_) * kMaxBiases);
}

// Once after each admission: from then on the device counts what it draws.
void SamplingBatch::count_tokens(ActiveSequence& sequence) {
  CHECK_EQ(sequence.n_pending, 0);
  CHECK_GE(sequence.slot, 0);
  backend_.upload(text_.data(), std::as_bytes(std::span(sequence.tokens)));
  TensorView row = counts();
  row.data += int64_t{sequence.slot} * vocab_size_ * static_cast<int64_t>(sizeof(int32_t));
  backend_.count_tokens(text_.view(DType::i32, 1, sequence.length()), sequence.n_prompt, row.head(1));
  sequence.counted = true;
}

void SamplingBatch::sample(TensorView logits) {
  ids_ = device_ids_.view(DType::i32, 1, n_rows());
  if (rows_.empty()) return;
  backend_.upload(device_rows_.data(), std::as_bytes(std::span(rows_)));
  if (!biases_.empty()) backend_.upload(device_biases_.data(), std::as_bytes(std::span(biases_)));
  backend_.sample(logits, {.rows = reinterpret_cast<const SamplingRow*>(device_rows_.data()),
                           .biases = reinterpret_cast<const LogitBias*>(device_biases_.data()),
                           .counts = counts(),
                           .ids = ids_,
                           .n_rows = n_rows()});
}

}  // namespace tramontane
