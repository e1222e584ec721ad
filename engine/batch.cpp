#include "engine/batch.h"

#include <algorithm>
#include <array>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Counts of the arrays in the order of their places: tokens, positions, slots, sources, q_starts, kv_lens,
// logit_rows, block_table.
std::array<int64_t, 8> array_sizes(const BatchLimits& l) {
  return {l.max_tokens,
          l.max_tokens,
          l.max_tokens,
          l.max_tokens,
          int64_t{l.max_sequences} + 1,
          l.max_sequences,
          l.max_logits,
          int64_t{l.max_sequences} * l.max_blocks};
}

// Arrays start at 64 bytes: no two share a cache line, and every vector load of their start is aligned.
int64_t padded_size(int64_t count) {
  return (count + 15) / 16 * 16;
}

}  // namespace

uint64_t Batch::workspace_bytes(const BatchLimits& limits) {
  int64_t count = 0;
  for (const int64_t size : array_sizes(limits)) count += padded_size(size);
  return static_cast<uint64_t>(count) * sizeof(int32_t);
}

Batch::Batch(Backend& backend, const BatchLimits& limits)
    : backend_(backend),
      limits_(limits),
      host_(workspace_bytes(limits) / sizeof(int32_t)),
      device_(backend.allocate(workspace_bytes(limits), "batch")) {
  const std::array<Array*, 8> arrays = {&tokens_,   &positions_, &slots_,      &sources_,
                                        &q_starts_, &kv_lens_,   &logit_rows_, &block_table_};
  const auto sizes = array_sizes(limits);
  int64_t place = 0;
  for (size_t i = 0; i < arrays.size(); ++i) {
    arrays[i]->host = host_.data() + place;
    arrays[i]->device = device_.data() + place * static_cast<int64_t>(sizeof(int32_t));
    place += padded_size(sizes[i]);
  }
  clear();
}

void Batch::clear() {
  for (Array* array :
       {&tokens_, &positions_, &slots_, &sources_, &q_starts_, &kv_lens_, &logit_rows_, &block_table_})
    array->size = 0;
  q_starts_.push(0);
  has_sources_ = false;
  max_q_ = max_kv_ = 0;
}

void Batch::add(std::span<const int32_t> tokens, int32_t first_position, std::span<const int32_t> blocks,
                int32_t n_logits) {
  const auto n_tokens = static_cast<int32_t>(tokens.size());
  const int32_t first_row = tokens_.size;
  const int32_t kv_len = first_position + n_tokens;
  CHECK_GE(n_tokens, 1);
  CHECK_LE(first_row + n_tokens, limits_.max_tokens);
  CHECK_LE(kv_lens_.size + 1, limits_.max_sequences);
  CHECK_LE(n_logits, std::min(n_tokens, limits_.max_logits - logit_rows_.size));
  CHECK_LE(static_cast<int32_t>(blocks.size()), limits_.max_blocks);
  CHECK_LE(kv_len, static_cast<int32_t>(blocks.size()) * kBlockTokens);
  for (int32_t i = 0; i < n_tokens; ++i) {
    const int32_t position = first_position + i;
    tokens_.push(tokens[i]);
    positions_.push(position);
    slots_.push(blocks[position / kBlockTokens] * kBlockTokens + position % kBlockTokens);
    sources_.push(-1);
  }
  for (int32_t i = n_tokens - n_logits; i < n_tokens; ++i) logit_rows_.push(first_row + i);
  q_starts_.push(first_row + n_tokens);
  kv_lens_.push(kv_len);
  push_blocks(blocks);
  max_q_ = std::max(max_q_, n_tokens);
  max_kv_ = std::max(max_kv_, kv_len);
}

// Entries past a sequence's last block are never read; block 0 keeps them valid for a kernel that prefetches.
void Batch::push_blocks(std::span<const int32_t> blocks) {
  int32_t* row = block_table_.host + block_table_.size;
  std::fill(std::copy(blocks.begin(), blocks.end(), row), row + limits_.max_blocks, 0);
  block_table_.size += limits_.max_blocks;
}

void Batch::take_last_token_from(int32_t drawn_row) {
  tokens_.host[tokens_.size - 1] = 0;
  sources_.host[sources_.size - 1] = drawn_row;
  has_sources_ = true;
}

// A step whose sequences have one row each, all with logits, is a decode step: it takes one of few sizes.
void Batch::pad() {
  const int32_t rows = tokens_.size;
  if (max_q_ != 1 || logit_rows_.size != rows) return;
  const int32_t most = std::min({limits_.max_tokens, limits_.max_sequences, limits_.max_logits});
  const int32_t padded = backend_.padded_rows(rows, most);
  CHECK_GE(padded, rows);
  CHECK_LE(padded, most);
  for (int32_t row = rows; row < padded; ++row) {
    tokens_.push(0);
    positions_.push(0);
    slots_.push(-1);
    sources_.push(-1);
    logit_rows_.push(row);
    q_starts_.push(row + 1);
    kv_lens_.push(0);
    push_blocks({});
  }
}

BatchView Batch::upload() {
  pad();
  const int32_t* end = block_table_.host + block_table_.size;
  backend_.upload(device_.data(), std::as_bytes(std::span<const int32_t>(host_.data(), end)));
  return {
      .tokens = tokens_.view(),
      .positions = positions_.view(),
      .slots = slots_.view(),
      .q_starts = q_starts_.view(),
      .kv_lens = kv_lens_.view(),
      .block_table = {block_table_.device, DType::i32, kv_lens_.size, limits_.max_blocks, limits_.max_blocks},
      .logit_rows = logit_rows_.view(),
      .n_tokens = tokens_.size,
      .n_seqs = kv_lens_.size,
      .n_logits = logit_rows_.size,
      .max_q = max_q_,
      .max_kv = max_kv_};
}

}  // namespace tramontane
