// PagedSequences: sequences with their q, k and v, in pages as launch_attention reads them; it runs any rows
// of them and computes the same in FP64.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>

#include "cuda/attention_plan.h"
#include "tests/cuda/device_tensor.h"

namespace tramontane::cuda {

// In one call, sequence `sequence` computes `n_rows` rows, the last of which is at position `kv_len` - 1.
// With kv_len 0 they are padding.
struct Rows {
  int32_t sequence, n_rows, kv_len;
};
using Call = std::vector<Rows>;
using Adjust = std::function<void(AttentionPlan&)>;  // changes a plan

// A call's batch, in device memory.
class DeviceBatch {
 public:
  DeviceBatch(const std::vector<int32_t>& q_starts, const std::vector<int32_t>& kv_lens,
              const std::vector<int32_t>& table)
      : q_starts_(q_starts), kv_lens_(kv_lens), table_(table) {
    const auto n_seqs = static_cast<int64_t>(kv_lens.size());
    const int64_t width = static_cast<int64_t>(table.size()) / n_seqs;
    view_.q_starts = q_starts_.view();
    view_.kv_lens = kv_lens_.view();
    view_.block_table = {table_.view().data, DType::i32, n_seqs, width, width};
    view_.n_tokens = q_starts.back();
    view_.n_seqs = static_cast<int32_t>(n_seqs);
    for (size_t s = 0; s < kv_lens.size(); ++s) {
      view_.max_q = std::max(view_.max_q, q_starts[s + 1] - q_starts[s]);
      view_.max_kv = std::max(view_.max_kv, kv_lens[s]);
    }
  }
  const BatchView& view() const { return view_; }

 private:
  DeviceTensor q_starts_, kv_lens_, table_;
  BatchView view_;
};

class PagedSequences {
 public:
  // k and v are what BF16 can hold. Pages hold NaN wherever no token is stored, and are in no order.
  PagedSequences(AttentionShape shape, std::vector<int32_t> lengths, uint32_t seed)
      : shape_(shape), lengths_(std::move(lengths)) {
    int64_t rows = 0;
    for (const int32_t length : lengths_) {
      first_row_.push_back(rows);
      rows += length;
      n_blocks_ += blocks_of(length);
    }
    // Scores of a few units: some keys clearly win, and many still count.
    qkv_ = random_values(static_cast<size_t>(rows * shape.qkv_cols()), seed, -2.0f, 2.0f);
    for (size_t i = 0; i < qkv_.size(); ++i)
      if (column_of(i) >= shape.q_cols()) qkv_[i] = stored_as_bf16(qkv_[i]);
    std::vector<int32_t> ids(static_cast<size_t>(n_blocks_));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    for (const int32_t length : lengths_) {
      tables_.emplace_back(ids.end() - blocks_of(length), ids.end());
      ids.resize(ids.size() - tables_.back().size());
    }
  }

  // Before the first run: scores that rise by `slope` from key to key (as far as BF16 tells them apart), so
  // that one key at the end of what a row sees outweighs all others.
  void set_ramp(float slope) {
    const float step = slope / std::sqrt(static_cast<float>(shape_.head_dim));
    for (size_t i = 0; i < qkv_.size(); ++i) {
      const auto row = static_cast<float>(static_cast<int64_t>(i) / shape_.qkv_cols());
      if (column_of(i) < shape_.q_cols()) {
        qkv_[i] = 1.0f;
      } else if (column_of(i) < shape_.q_cols() + shape_.kv_cols()) {
        qkv_[i] = stored_as_bf16(step * row);
      }
    }
  }

  // The batch of a call; its tables name no block that a sequence does not have.
  DeviceBatch batch_of(const Call& call) const {
    std::vector<int32_t> q_starts = {0}, kv_lens, table;
    const auto width = static_cast<size_t>(blocks_of(*std::max_element(lengths_.begin(), lengths_.end())));
    for (const Rows& rows : call) {
      const std::vector<int32_t>& blocks = tables_[static_cast<size_t>(rows.sequence)];
      q_starts.push_back(q_starts.back() + rows.n_rows);
      kv_lens.push_back(rows.kv_len);
      if (rows.kv_len > 0) table.insert(table.end(), blocks.begin(), blocks.end());
      table.resize(kv_lens.size() * width, -1);
    }
    return {q_starts, kv_lens, table};
  }

  // The qkv rows of a call.
  Values rows_of(const Call& call) const {
    Values qkv;
    for (const Rows& rows : call) {
      for (int32_t i = 0; i < rows.n_rows; ++i) {
        const int64_t row = rows.kv_len > 0 ? row_of(rows.sequence, rows.kv_len - rows.n_rows + i) : 0;
        const auto from = qkv_.begin() + row * shape_.qkv_cols();
        qkv.insert(qkv.end(), from, from + shape_.qkv_cols());
      }
    }
    return qkv;
  }

  KvLayer cache() {
    if (!cache_) store_all();
    return {cache_->view().data, n_blocks_};
  }

  // Attention's output of the rows of a call, one after the other. `adjust` may change the plan; `pad`:
  // elements between rows.
  Values run(const Call& call, const Adjust& adjust = {}, int32_t pad = 0) {
    const DeviceBatch batch = batch_of(call);
    const int64_t n = batch.view().n_tokens;
    const DeviceTensor qkv(DType::f32, n, shape_.qkv_cols(), rows_of(call), shape_.qkv_cols() + pad);
    const DeviceTensor out(DType::bf16, n, shape_.q_cols(), {}, shape_.q_cols() + pad);
    AttentionPlan plan = plan_attention(shape_, batch.view());
    if (adjust) adjust(plan);
    launch_attention(nullptr, qkv.view(), batch.view(), shape_, cache(), out.view(), workspace(batch.view()),
                     plan);
    return out.download();
  }

  // The rows of all sequences, by several calls; NaN where they compute none.
  Values run_all(const std::vector<Call>& calls) {
    Values all(qkv_.size() / static_cast<size_t>(shape_.qkv_cols()) * static_cast<size_t>(shape_.q_cols()),
               NAN);
    for (const Call& call : calls) {
      const Values out = run(call);
      auto from = out.begin();
      for (const Rows& rows : call) {
        const int64_t count = rows.n_rows * shape_.q_cols();
        const int64_t to = row_of(rows.sequence, rows.kv_len - rows.n_rows) * shape_.q_cols();
        std::copy_n(from, count, all.begin() + to);
        from += count;
      }
    }
    return all;
  }

  // Calls that compute everything: at most n rows of each sequence a call, side by side.
  std::vector<Call> in_steps_of(int32_t n) const {
    std::vector<Call> calls;
    for (int32_t done = 0; done < *std::max_element(lengths_.begin(), lengths_.end()); done += n) {
      Call& call = calls.emplace_back();
      for (size_t s = 0; s < lengths_.size(); ++s) {
        const int32_t count = std::min(lengths_[s] - done, n);
        if (count > 0) call.push_back({static_cast<int32_t>(s), count, done + count});
      }
    }
    return calls;
  }

  // Zero when first used; afterwards each call must leave its counters so.
  std::byte* workspace(const BatchView& batch) {
    const size_t bytes = attention_workspace_bytes(shape_, batch.n_tokens, batch.n_seqs, batch.max_kv);
    if (bytes > workspace_bytes_) {
      workspace_ = std::make_unique<DeviceTensor>(std::vector<int32_t>(bytes / sizeof(int32_t), 0));
      workspace_bytes_ = bytes;
    }
    return workspace_->view().data;
  }

  // Compares `out`, the rows of a call, with FP64: `checked` rows of each sequence, the last always.
  void expect_right(const Call& call, const Values& out, int32_t checked = 12) const {
    std::vector<double> want, bound;
    Values got;
    int64_t row = 0;
    for (const Rows& rows : call) {
      const int32_t stride = std::max(1, rows.n_rows / checked) | 1;
      for (int32_t i = 0; i < rows.n_rows; ++i, ++row) {
        if (i % stride != (rows.n_rows - 1) % stride) continue;
        const auto from = out.begin() + row * shape_.q_cols();
        got.insert(got.end(), from, from + shape_.q_cols());
        expect_row(rows.sequence, rows.kv_len - rows.n_rows + i, want, bound);
      }
    }
    expect_within(got, want, bound, "attention");
  }

 private:
  static int32_t blocks_of(int32_t length) { return (length + kBlockTokens - 1) / kBlockTokens; }
  int64_t row_of(int32_t sequence, int32_t position) const {
    return first_row_[static_cast<size_t>(sequence)] + position;
  }
  float element(int32_t sequence, int32_t position, int64_t column) const {
    return qkv_[static_cast<size_t>(row_of(sequence, position) * shape_.qkv_cols() + column)];
  }

  void store_all() {
    Values cache(static_cast<size_t>(n_blocks_ * 2 * shape_.kv_cols() * kBlockTokens), NAN);
    for (size_t s = 0; s < lengths_.size(); ++s)
      for (int32_t p = 0; p < lengths_[s]; ++p) store(cache, static_cast<int32_t>(s), p);
    cache_ =
        std::make_unique<DeviceTensor>(DType::bf16, n_blocks_, 2 * shape_.kv_cols() * kBlockTokens, cache);
  }
  void store(Values& cache, int32_t sequence, int32_t position) const {
    const int32_t block =
        tables_[static_cast<size_t>(sequence)][static_cast<size_t>(position / kBlockTokens)];
    for (int64_t part = 0; part < 2; ++part) {
      for (int64_t head = 0; head < shape_.n_kv_heads; ++head) {
        const int64_t head_page = (block * 2 + part) * shape_.n_kv_heads + head;
        const int64_t column = shape_.q_cols() + part * shape_.kv_cols() + head * shape_.head_dim;
        for (int64_t d = 0; d < shape_.head_dim; ++d)
          cache[static_cast<size_t>((head_page * kBlockTokens + position % kBlockTokens) * shape_.head_dim +
                                    d)] = element(sequence, position, column + d);
      }
    }
  }

  void expect_row(int32_t sequence, int32_t position, std::vector<double>& want,
                  std::vector<double>& bound) const {
    const int32_t dim = shape_.head_dim;
    const int32_t first = shape_.sliding_window > 0 ? std::max(0, position - shape_.sliding_window + 1) : 0;
    for (int32_t h = 0; h < shape_.n_heads; ++h) {
      if (position < 0) {  // padding: zeros
        want.resize(want.size() + static_cast<size_t>(dim), 0.0);
        bound.resize(want.size(), 0.0);
        continue;
      }
      const int64_t k_column = shape_.q_cols() + h / (shape_.n_heads / shape_.n_kv_heads) * dim;
      const int64_t v_column = k_column + shape_.kv_cols();
      std::vector<double> weights;
      double max = -INFINITY, magnitude = 0;
      for (int32_t p = first; p <= position; ++p) {
        double score = 0, absolute = 0;
        for (int32_t d = 0; d < dim; ++d) {
          const double product = double{stored_as_bf16(element(sequence, position, int64_t{h} * dim + d))} *
                                 double{element(sequence, p, k_column + d)};
          score += product;
          absolute += std::abs(product);
        }
        weights.push_back(score / std::sqrt(double(dim)));
        max = std::max(max, weights.back());
        magnitude = std::max(magnitude, absolute / std::sqrt(double(dim)));
      }
      double sum = 0;
      for (double& weight : weights) sum += weight = std::exp(weight - max);
      // A score is a sum of head_dim products, scaled; its error, and a few roundings of the exponential, are
      // relative errors of a weight and of the weights' sum; both sums run over all keys and are scaled now
      // and then. A weight is rounded to BF16, in both sums alike.
      const auto n_keys = static_cast<double>(weights.size());
      const double relative = 2 * ((dim + 8) * magnitude + 16 + 2 * n_keys) * kF32Epsilon + 2 * kBf16Epsilon;
      for (int32_t d = 0; d < dim; ++d) {
        double value = 0, absolute = 0;
        for (size_t i = 0; i < weights.size(); ++i) {
          const double v = element(sequence, first + static_cast<int32_t>(i), v_column + d);
          value += weights[i] / sum * v;
          absolute += weights[i] / sum * std::abs(v);
        }
        want.push_back(value);
        bound.push_back(relative * absolute + 1.01 * kBf16Epsilon * std::abs(value));
      }
    }
  }

  int64_t column_of(size_t element) const { return static_cast<int64_t>(element) % shape_.qkv_cols(); }

  AttentionShape shape_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> first_row_;  // of each sequence in qkv_
  Values qkv_;                      // [rows, qkv_cols]
  std::vector<std::vector<int32_t>> tables_;
  int32_t n_blocks_ = 3;  // some stay unused
  std::unique_ptr<DeviceTensor> cache_, workspace_;
  size_t workspace_bytes_ = 0;
};

}  // namespace tramontane::cuda
