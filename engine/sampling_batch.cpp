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
  size_t rows, biases, counts, ids, text;  // bytes; biases follow the rows in one buffer
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
  host_.resize(sizes.rows + sizes.biases);
  rows_ = reinterpret_cast<SamplingRow*>(host_.data());
  biases_ = reinterpret_cast<LogitBias*>(host_.data() + sizes.rows);
  draws_ = backend.allocate(host_.size(), "sampling rows and biases");
  counts_ = backend.allocate(sizes.counts, "token counts");
  device_ids_ = backend.allocate(sizes.ids, "sampled ids");
  text_ = backend.allocate(sizes.text, "text to count");
  ids_ = device_ids_.view(DType::i32, 1, 0);
}

TensorView SamplingBatch::counts() const {
  return counts_.view(DType::i32, max_sequences_, vocab_size_);
}

void SamplingBatch::clear() {
  n_rows_ = n_biases_ = 0;
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
  rows_[n_rows_++] = row;
}

// Both lists are sorted and without duplicates. What may not be sampled needs no bias.
void SamplingBatch::add_biases(const ActiveSequence& sequence, SamplingRow& row) {
  const ActiveRequest& active = *sequence.owner;
  const std::vector<int32_t>& end_ids = active.end_ids;
  const bool may_end = sequence.n_output() >= active.request.sampling.min_tokens;
  const auto& biases = active.request.sampling.logit_bias;
  CHECK_LE(end_ids.size() + biases.size(), kMaxBiases);
  row.first_bias = n_biases_;
  if (!may_end) {
    for (const int32_t id : end_ids) biases_[n_biases_++] = {id, -std::numeric_limits<float>::infinity()};
  }
  for (const auto& [id, bias] : biases) {
    if (may_end || !std::binary_search(end_ids.begin(), end_ids.end(), id)) biases_[n_biases_++] = {id, bias};
  }
  row.n_biases = n_biases_ - row.first_bias;
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
  if (n_rows_ == 0) return;
  const auto first_bias = static_cast<size_t>(reinterpret_cast<std::byte*>(biases_) - host_.data());
  const size_t bytes = n_biases_ == 0 ? static_cast<size_t>(n_rows_) * sizeof(SamplingRow)
                                      : first_bias + static_cast<size_t>(n_biases_) * sizeof(LogitBias);
  backend_.upload(draws_.data(), std::span(host_).first(bytes));
  backend_.sample(logits, {.rows = reinterpret_cast<const SamplingRow*>(draws_.data()),
                           .biases = reinterpret_cast<const LogitBias*>(draws_.data() + first_bias),
                           .counts = counts(),
                           .ids = ids_,
                           .n_rows = n_rows()});
}

}  // namespace tramontane
