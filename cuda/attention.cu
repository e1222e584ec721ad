// What attention.h and attention_plan.h declare: plans, workspace, and the choice of kernels.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "cuda/attention_kernels.h"
#include "cuda/attention_tile.cuh"

namespace tramontane::cuda {
namespace {

// With so few sequences in a step, up to 8 tiles of columns (32 rows of a 7B model: the end of a long prompt,
// or speculated tokens) are decoded: prefill's one block a tile and kv head would leave most SMs idle while
// it walks all keys. With more sequences only single rows are, so that their grid has no idle tiles.
constexpr int32_t kFewSequences = 4;
constexpr int32_t kMostDecodeColumns = 8 * kDecodeTile;
// Blocks that a decode step spreads to: five times what 132 SMs hold. Blocks beyond a short sequence's last
// chunk cost a launch and two loads each, so that more of them would be felt.
constexpr int64_t kDecodeBlocks = 2048;
// Partial results of a million keys of a 7B model.
constexpr int64_t kPartialBytes = int64_t{64} << 20;
// Counters lie before the partial results, at the same place whatever the batch: they must stay zero.
constexpr int64_t kCounters = 16384;

int64_t divide_up(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// Of one partial result: the sums, their maximum and weight.
int64_t bytes_of_row(const AttentionShape& shape) {
  return (int64_t{shape.head_dim} + 2) * int64_t{sizeof(float)};
}

// Columns of one row, in whole tiles.
int64_t columns_of_row(const AttentionShape& shape) {
  return divide_up(shape.n_heads / shape.n_kv_heads, kDecodeTile) * kDecodeTile;
}

// Most chunks that a decoded sequence of at most max_kv keys sees.
int64_t most_chunks(const AttentionShape& shape, int64_t max_kv) {
  const int64_t all = divide_up(std::max<int64_t>(max_kv, 1), kAttentionChunk);
  if (shape.sliding_window == 0) return all;
  // A window that moves over kMostDecodeColumns rows, wherever it begins in a chunk.
  return std::min(all, divide_up(int64_t{shape.sliding_window} + kMostDecodeColumns, kAttentionChunk) + 1);
}

// Most bytes of partial results that a batch of at most so many sequences has use for. It grows with both.
int64_t partial_bytes(const AttentionShape& shape, int64_t n_seqs, int64_t max_kv) {
  const int64_t rows =
      std::max(n_seqs * columns_of_row(shape), std::min<int64_t>(n_seqs, kFewSequences) * kMostDecodeColumns);
  return std::min(most_chunks(shape, max_kv) * rows * shape.n_kv_heads * bytes_of_row(shape), kPartialBytes);
}

// Calls visit(std::integral_constant<int, D>()) for the head_dim D that the kernels are compiled for.
template <typename Visit>
void for_head_dim(const AttentionShape& shape, const Visit& visit) {
  switch (shape.head_dim) {
#define TRAMONTANE_CASE(head_dim) \
  case head_dim:                  \
    return visit(std::integral_constant<int, head_dim>());
    TRAMONTANE_ATTENTION_HEAD_DIMS(TRAMONTANE_CASE)
#undef TRAMONTANE_CASE
    default:
      break;
  }
  std::string known;
#define TRAMONTANE_NAME(head_dim) known += (known.empty() ? "" : ", ") + std::to_string(head_dim);
  TRAMONTANE_ATTENTION_HEAD_DIMS(TRAMONTANE_NAME)
#undef TRAMONTANE_NAME
  throw std::runtime_error("attention: head_dim is " + std::to_string(shape.head_dim) +
                           "; CUDA kernels are built for " + known);
}

void check_shape(const AttentionShape& shape) {
  for_head_dim(shape, [](auto) {});
  if (shape.n_kv_heads <= 0 || shape.n_heads % shape.n_kv_heads != 0)
    throw std::runtime_error("attention: " + std::to_string(shape.n_heads) + " heads cannot share " +
                             std::to_string(shape.n_kv_heads) + " kv heads");
}

void check_alignment(const char* name, const TensorView& view, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(view.data) % bytes == 0 && view.row_stride % 2 == 0) return;
  throw std::runtime_error(std::string("attention: rows of ") + name + " must begin at multiples of " +
                           std::to_string(bytes) + " bytes, they are " + std::to_string(view.row_stride) +
                           " elements apart");
}

AttentionArguments arguments_of(TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                                KvLayer kv, TensorView out, std::byte* workspace, const AttentionPlan& plan) {
  const int64_t state_rows = int64_t{plan.max_partials} * shape.n_kv_heads * plan.partial_rows;
  auto* states = reinterpret_cast<float2*>(workspace + kCounters * sizeof(int32_t));
  return {.qkv = qkv.row<const float>(0),
          .qkv_stride = qkv.row_stride,
          .q_starts = batch.q_starts.row<const int32_t>(0),
          .kv_lens = batch.kv_lens.row<const int32_t>(0),
          .block_table = batch.block_table.row<const int32_t>(0),
          .table_stride = batch.block_table.row_stride,
          .pages = reinterpret_cast<const __nv_bfloat16*>(kv.data),
          .out = out.row<__nv_bfloat16>(0),
          .out_stride = out.row_stride,
          .n_seqs = batch.n_seqs,
          .n_kv_heads = shape.n_kv_heads,
          .group = shape.n_heads / shape.n_kv_heads,
          .window = shape.sliding_window,
          .scale = static_cast<float>(std::log2(std::exp(1.0)) / std::sqrt(double(shape.head_dim))),
          .decode_columns = plan.decode_columns,
          .decode_tiles = plan.decode_tiles,
          .max_partials = plan.max_partials,
          .partial_rows = plan.partial_rows,
          .counters = reinterpret_cast<int32_t*>(workspace),
          .partial_states = states,
          .partial_sums = reinterpret_cast<float*>(states + divide_up(state_rows, 2) * 2)};
}

}  // namespace

size_t attention_workspace_bytes(const AttentionShape& shape, int32_t max_tokens, int32_t max_sequences,
                                 int32_t max_kv) {
  check_shape(shape);
  static_cast<void>(max_tokens);  // rows beyond the decoded ones need no scratch
  // 16: the sums begin at a multiple of it.
  return static_cast<size_t>(kCounters * int64_t{sizeof(int32_t)} +
                             partial_bytes(shape, max_sequences, max_kv) + 16);
}

void load_attention_kernels(const AttentionShape& shape) {
  for_head_dim(shape, [](auto head_dim) {
    load_attention_decode<head_dim()>();
    load_attention_prefill<head_dim()>();
  });
}

AttentionPlan plan_attention(const AttentionShape& shape, const BatchView& batch) {
  const int64_t group = shape.n_heads / shape.n_kv_heads, most = batch.max_q * group;
  int64_t limit = columns_of_row(shape);
  if (batch.n_seqs <= kFewSequences) limit = std::max<int64_t>(limit, kMostDecodeColumns);
  const bool has_long = most > limit;
  // Where all sequences have max_q rows there are none of fewer.
  const bool has_short = !has_long || batch.n_tokens < int64_t{batch.n_seqs} * batch.max_q;

  AttentionPlan plan;
  plan.decode_columns = static_cast<int32_t>(limit);
  if (has_short) {
    plan.decode_tiles = static_cast<int32_t>(divide_up(std::min(most, limit), kDecodeTile));
    plan.partial_rows = static_cast<int32_t>(std::min<int64_t>(most, kDecodeTile));
    const int64_t tiles = int64_t{batch.n_seqs} * plan.decode_tiles * shape.n_kv_heads;
    plan.splits = static_cast<int32_t>(std::clamp<int64_t>(kDecodeBlocks / std::max<int64_t>(tiles, 1), 1,
                                                           most_chunks(shape, batch.max_kv)));
    const int64_t bytes = int64_t{plan.partial_rows} * shape.n_kv_heads * bytes_of_row(shape);
    if (tiles <= kCounters && plan.splits > 1)
      plan.max_partials = static_cast<int32_t>(partial_bytes(shape, batch.n_seqs, batch.max_kv) / bytes);
  }
  if (has_long)
    plan.prefill_tiles = static_cast<int32_t>(int64_t{batch.n_tokens} * group / kPrefillTile + batch.n_seqs);
  return plan;
}

void launch_attention(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                      KvLayer kv, TensorView out, std::byte* workspace) {
  if (batch.n_tokens == 0 || batch.n_seqs == 0) return;
  check_shape(shape);
  launch_attention(stream, qkv, batch, shape, kv, out, workspace, plan_attention(shape, batch));
}

void launch_attention(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                      KvLayer kv, TensorView out, std::byte* workspace, const AttentionPlan& plan) {
  check_alignment("qkv", qkv, sizeof(float2));
  check_alignment("out", out, sizeof(uint32_t));
  const AttentionArguments arguments = arguments_of(qkv, batch, shape, kv, out, workspace, plan);
  for_head_dim(shape, [&](auto head_dim) {
    if (plan.decode_tiles > 0) launch_attention_decode<head_dim()>(stream, arguments, plan);
    if (plan.prefill_tiles > 0) launch_attention_prefill<head_dim()>(stream, arguments, plan);
  });
}

}  // namespace tramontane::cuda
