#include "engine/batch.h"

#include <algorithm>
#include <array>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Counts of the arrays in the order of their places in the device buffer: tokens, positions, slots, q_starts,
// kv_lens, logit_rows, block_table, sources.
std::array<int64_t, 8> array_sizes(const BatchLimits& l) {
  return {l.max_tokens,
          l.max_tokens,
          l.max_tokens,
          int64_t{l.max_sequences} + 1,
          l.max_sequences,
          l.max_logits,
          int64_t{l.max_sequences} * l.max_blocks,
          l.max_tokens};
}

// Arrays start at 64 bytes: no two share a cache line, and every vector load of their start is aligned.
size_t padded_bytes(int64_t count) {
  return (static_cast<size_t>(count) * sizeof(int32_t) + 63) / 64 * 64;
}

}  // namespace

uint64_t Batch::workspace_bytes(const BatchLimits& limits) {
  uint64_t bytes = 0;
  for (const int64_t count : array_sizes(limits)) bytes += padded_bytes(count);
  return bytes;
}

Batch::Batch(Backend& backend, const BatchLimits& limits) : backend_(backend), limits_(limits) {
  device_ = backend.allocate(workspace_bytes(limits), "batch");
  const std::array<Array*, 8> arrays = {&tokens_,  &positions_,  &slots_,       &q_starts_,
                                        &kv_lens_, &logit_rows_, &block_table_, &sources_};
  const auto sizes = array_sizes(limits);
  std::byte* place = device_.data();
  for (size_t i = 0; i < arrays.size(); ++i) {
    arrays[i]->host.reserve(static_cast<size_t>(sizes[i]));
    arrays[i]->device = reinterpret_cast<int32_t*>(place);
    place += padded_bytes(sizes[i]);
  }
  clear();
}

void Batch::clear() {
  for (Array* array : {&tokens_, &positions_, &slots_, &kv_lens_, &logit_rows_, &block_table_, &sources_})
    array->host.clear();
  has_sources_ = false;
  q_starts_.host.assign(1, 0);
  max_q_ = max_kv_ = 0;
}

void Batch::add(std::span<const int32_t> tokens, int32_t first_position, std::span<const int32_t> blocks,
                int32_t n_logits) {
  const auto n_tokens = static_cast<int32_t>(tokens.size());
  const int32_t first_row = q_starts_.host.back();
  const int32_t kv_len = first_position + n_tokens;
  CHECK_GE(n_tokens, 1);
  CHECK_LE(first_row + n_tokens, limits_.max_tokens);
  CHECK_LE(static_cast<int32_t>(kv_lens_.host.size()) + 1, limits_.max_sequences);
  CHECK_LE(static_cast<int32_t>(logit_rows_.host.size()) + n_logits, limits_.max_logits);
  CHECK_LE(static_cast<int32_t>(blocks.size()), limits_.max_blocks);
  CHECK_LE(kv_len, static_cast<int32_t>(blocks.size()) * kBlockTokens);
  for (int32_t i = 0; i < n_tokens; ++i) {
    const int32_t position = first_position + i;
    tokens_.host.push_back(tokens[i]);
    positions_.host.push_back(position);
    slots_.host.push_back(blocks[position / kBlockTokens] * kBlockTokens + position % kBlockTokens);
  }
  sources_.host.resize(tokens_.host.size(), -1);
  for (int32_t i = n_tokens - n_logits; i < n_tokens; ++i) logit_rows_.host.push_back(first_row + i);
  q_starts_.host.push_back(first_row + n_tokens);
  kv_lens_.host.push_back(kv_len);
  block_table_.host.insert(block_table_.host.end(), blocks.begin(), blocks.end());
  // Entries past a sequence's last block are never read; block 0 keeps them valid for a kernel that
  // prefetches.
  block_table_.host.resize(kv_lens_.host.size() * static_cast<size_t>(limits_.max_blocks), 0);
  max_q_ = std::max(max_q_, n_tokens);
  max_kv_ = std::max(max_kv_, kv_len);
}

void Batch::take_last_token_from(int32_t drawn_row) {
  tokens_.host.back() = 0;
  sources_.host.back() = drawn_row;
  has_sources_ = true;
}

TensorView Batch::copy(const Array& array) {
  auto* device = reinterpret_cast<std::byte*>(array.device);
  const auto count = static_cast<int64_t>(array.host.size());
  if (count > 0) backend_.upload(device, std::as_bytes(std::span(array.host)));
  return {device, DType::i32, 1, count, count};
}

// A step whose sequences have one row each, all with logits, is a decode step: it takes one of few sizes.
void Batch::pad() {
  const auto rows = static_cast<int32_t>(tokens_.host.size());
  const auto n_seqs = static_cast<int32_t>(kv_lens_.host.size());
  if (max_q_ != 1 || logit_rows_.host.size() != tokens_.host.size()) return;
  const int32_t most = std::min({limits_.max_tokens, limits_.max_sequences, limits_.max_logits});
  const int32_t padded = backend_.padded_rows(rows, most);
  CHECK_GE(padded, n_seqs);
  CHECK_LE(padded, most);
  for (int32_t row = rows; row < padded; ++row) {
    tokens_.host.push_back(0);
    positions_.host.push_back(0);
    slots_.host.push_back(-1);
    logit_rows_.host.push_back(row);
    q_starts_.host.push_back(row + 1);
    kv_lens_.host.push_back(0);
  }
  block_table_.host.resize(kv_lens_.host.size() * static_cast<size_t>(limits_.max_blocks), 0);
}

BatchView Batch::upload() {
  pad();
  BatchView view;
  view.n_tokens = static_cast<int32_t>(tokens_.host.size());
  view.n_seqs = static_cast<int32_t>(kv_lens_.host.size());
  view.n_logits = static_cast<int32_t>(logit_rows_.host.size());
  view.max_q = max_q_;
  view.max_kv = max_kv_;
  view.tokens = copy(tokens_);
  view.positions = copy(positions_);
  view.slots = copy(slots_);
  view.q_starts = copy(q_starts_);
  view.kv_lens = copy(kv_lens_);
  view.logit_rows = copy(logit_rows_);
  copy(block_table_);
  view.block_table = {reinterpret_cast<std::byte*>(block_table_.device), DType::i32, view.n_seqs,
                      limits_.max_blocks, limits_.max_blocks};
  return view;
}

}  // namespace tramontane
