#include "tests/ops/paged_case.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace tramontane::ops {

PagedCase::PagedCase(AttentionShape shape, std::vector<int32_t> lengths, uint32_t seed)
    : shape_(shape), lengths_(std::move(lengths)) {
  int64_t rows = 0;
  for (int32_t length : lengths_) {
    first_row_.push_back(rows);
    rows += length;
    n_blocks_ += (length + kBlockTokens - 1) / kBlockTokens;
    longest_ = std::max(longest_, length);
  }
  // Scores of a few units: some keys clearly win, and many still count.
  original_ = random_values(static_cast<size_t>(rows * shape.qkv_cols()), seed, -2.0f, 2.0f);
  for (int32_t position = 0; position < longest_; ++position) {
    for (int32_t d = 0; d < shape.head_dim; d += 2) {
      const double angle = position * std::pow(10000.0, -double(d) / shape.head_dim);
      rope_.push_back(static_cast<float>(std::cos(angle)));
      rope_.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  std::vector<int32_t> ids(static_cast<size_t>(n_blocks_) + 3);  // some blocks stay unused
  std::iota(ids.begin(), ids.end(), 0);
  std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
  auto next = ids.begin();
  for (int32_t length : lengths_) {
    const int32_t count = (length + kBlockTokens - 1) / kBlockTokens;
    blocks_.emplace_back(next, next + count);
    next += count;
  }
  n_blocks_ = static_cast<int32_t>(ids.size());
}

Values PagedCase::run(Backend& backend, const std::vector<PagedStep>& steps) {
  const int64_t per_block = 2 * shape_.kv_cols() * kBlockTokens;
  // What an earlier request left in a page must not matter: fill the cache with NaN.
  const DeviceTensor cache(backend, backend.act_dtype(), n_blocks_, per_block,
                           Values(static_cast<size_t>(n_blocks_ * per_block), NAN));
  const DeviceTensor rope(backend, DType::f32, longest_, shape_.head_dim, rope_);
  rotated_.assign(original_.size(), 0.0f);
  Values out(original_.size() / static_cast<size_t>(shape_.qkv_cols()) *
             static_cast<size_t>(shape_.q_cols()));
  std::vector<int32_t> done(lengths_.size(), 0);
  for (const PagedStep& step : steps)
    run_step(backend, step, done, rope.view(), {cache.view().data, n_blocks_}, out);
  EXPECT_EQ(done, lengths_) << "the plan leaves rows out";
  return out;
}

void PagedCase::run_step(Backend& backend, const PagedStep& step, std::vector<int32_t>& done, TensorView rope,
                         KvLayer kv, Values& out) {
  const auto width = static_cast<size_t>(shape_.qkv_cols()), out_width = static_cast<size_t>(shape_.q_cols());
  std::vector<int32_t> positions, slots, q_starts = {0}, kv_lens, table;
  std::vector<int64_t> rows;
  const int32_t table_width = (longest_ + kBlockTokens - 1) / kBlockTokens;
  Values qkv_values;
  BatchView batch;
  for (const PagedChunk& chunk : step) {
    const auto s = static_cast<size_t>(chunk.sequence);
    for (int32_t i = 0; i < chunk.n_tokens; ++i) {
      const int32_t position = done[s] + i;
      positions.push_back(position);
      slots.push_back(blocks_[s][static_cast<size_t>(position / kBlockTokens)] * kBlockTokens +
                      position % kBlockTokens);
      rows.push_back(row_of(chunk.sequence, position));
      const auto from = original_.begin() + rows.back() * static_cast<int64_t>(width);
      qkv_values.insert(qkv_values.end(), from, from + static_cast<int64_t>(width));
    }
    done[s] += chunk.n_tokens;
    q_starts.push_back(static_cast<int32_t>(positions.size()));
    kv_lens.push_back(done[s]);
    table.insert(table.end(), blocks_[s].begin(), blocks_[s].end());
    table.resize(kv_lens.size() * static_cast<size_t>(table_width), -1);
    batch.max_q = std::max(batch.max_q, chunk.n_tokens);
    batch.max_kv = std::max(batch.max_kv, done[s]);
  }
  batch.n_tokens = static_cast<int32_t>(positions.size());
  batch.n_seqs = static_cast<int32_t>(step.size());
  const DeviceTensor d_positions(backend, positions), d_slots(backend, slots), d_starts(backend, q_starts);
  const DeviceTensor d_lens(backend, kv_lens), d_table(backend, table);
  batch.positions = d_positions.view();
  batch.slots = d_slots.view();
  batch.q_starts = d_starts.view();
  batch.kv_lens = d_lens.view();
  batch.block_table = {d_table.view().data, DType::i32, batch.n_seqs, table_width, table_width};

  const DeviceTensor qkv(backend, DType::f32, batch.n_tokens, shape_.qkv_cols(), qkv_values,
                         shape_.qkv_cols() + 2);
  const DeviceTensor result(backend, backend.act_dtype(), batch.n_tokens, shape_.q_cols(),
                            shape_.q_cols() + 2);
  backend.begin_step(batch);
  backend.rope_store_kv(qkv.view(), batch, shape_, rope, kv);
  backend.attention(qkv.view(), batch, shape_, kv, result.view());
  backend.end_step();
  const Values rotated = qkv.download(), attended = result.download();
  for (size_t i = 0; i < rows.size(); ++i) {
    std::copy_n(rotated.begin() + static_cast<int64_t>(i * width), width,
                rotated_.begin() + rows[i] * static_cast<int64_t>(width));
    std::copy_n(attended.begin() + static_cast<int64_t>(i * out_width), out_width,
                out.begin() + rows[i] * static_cast<int64_t>(out_width));
  }
}

void PagedCase::expect_rotated(const std::string& what) const {
  std::vector<double> want, bound;
  for (int32_t s = 0; s < n_sequences(); ++s) {
    for (int32_t p = 0; p < lengths_[static_cast<size_t>(s)]; ++p) {
      const float* row = original_.data() + row_of(s, p) * shape_.qkv_cols();
      for (int64_t c = 0; c < shape_.qkv_cols(); c += 2) {
        const bool rotates = c < shape_.q_cols() + shape_.kv_cols();
        const float* pair = rope_.data() + int64_t{p} * shape_.head_dim + c % shape_.head_dim;
        const double a = row[c], b = row[c + 1], cosine = rotates ? pair[0] : 1, sine = rotates ? pair[1] : 0;
        want.push_back(a * cosine - b * sine);
        want.push_back(a * sine + b * cosine);
        // two products and a sum, each rounded
        const double error = rotates ? 2 * kF32Epsilon * (std::abs(a) + std::abs(b)) : 0;
        bound.insert(bound.end(), 2, error);
      }
    }
  }
  expect_within(rotated_, want, bound, what + ", rotated qkv");
}

void PagedCase::expect_row(int32_t sequence, int32_t position, DType act_dtype, double rounding,
                           std::vector<double>& want, std::vector<double>& bound) const {
  const int32_t dim = shape_.head_dim;
  const int32_t first = shape_.sliding_window > 0 ? std::max(0, position - shape_.sliding_window + 1) : 0;
  const auto element = [&](int32_t p, int64_t column) {
    return rotated_[static_cast<size_t>(row_of(sequence, p) * shape_.qkv_cols() + column)];
  };
  for (int32_t h = 0; h < shape_.n_heads; ++h) {
    const int64_t k_column = shape_.q_cols() + h / (shape_.n_heads / shape_.n_kv_heads) * dim;
    const int64_t v_column = k_column + shape_.kv_cols();
    std::vector<double> scores;
    double max = -INFINITY, magnitude = 0;
    for (int32_t p = first; p <= position; ++p) {
      double score = 0, absolute = 0;
      for (int32_t d = 0; d < dim; ++d) {
        const double product = double{element(position, int64_t{h} * dim + d)} *
                               double{stored_as(element(p, k_column + d), act_dtype)};
        score += product;
        absolute += std::abs(product);
      }
      scores.push_back(score / std::sqrt(double(dim)));
      max = std::max(max, scores.back());
      magnitude = std::max(magnitude, absolute / std::sqrt(double(dim)));
    }
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - max);
    // A score is a sum of head_dim products, each scaled once; its error, and a few roundings of exp, are
    // relative errors of a weight and of the weights' sum; both sums run over all keys.
    const auto n_keys = static_cast<double>(scores.size());
    // A query rounded moves its scores by `rounding` of their terms, and a score's error is a weight's.
    const double relative = 2 * ((dim + 4) * magnitude + 8 + n_keys) * kF32Epsilon +
                            2 * (std::expm1(rounding * magnitude) + rounding);
    for (int32_t d = 0; d < dim; ++d) {
      double value = 0, absolute = 0;
      for (size_t i = 0; i < scores.size(); ++i) {
        const double v = stored_as(element(first + static_cast<int32_t>(i), v_column + d), act_dtype);
        value += scores[i] / sum * v;
        absolute += scores[i] / sum * std::abs(v);
      }
      want.push_back(value);
      bound.push_back(relative * absolute + 1.01 * storage_epsilon(act_dtype) * std::abs(value));
    }
  }
}

void PagedCase::expect_attention(const Values& out, DType act_dtype, const std::string& what,
                                 double rounding) const {
  std::vector<double> want, bound;
  Values got;
  for (int32_t s = 0; s < n_sequences(); ++s) {
    const int32_t length = lengths_[static_cast<size_t>(s)];
    const int32_t stride =
        std::max(1, length / 24) | 1;  // FP64 is slow: about 24 rows of each sequence, its last always
    for (int32_t p = (length - 1) % stride; p < length; p += stride) {
      expect_row(s, p, act_dtype, rounding, want, bound);
      const auto row = out.begin() + row_of(s, p) * shape_.q_cols();
      got.insert(got.end(), row, row + shape_.q_cols());
    }
  }
  expect_within(got, want, bound, what + ", attention");
}

std::vector<PagedStep> PagedCase::at_once() const {
  return in_chunks(longest_);
}

std::vector<PagedStep> PagedCase::in_chunks(int32_t n_tokens) const {
  std::vector<PagedStep> steps;
  for (int32_t first = 0; first < longest_; first += n_tokens) {
    PagedStep step;
    for (int32_t s = 0; s < n_sequences(); ++s) {
      const int32_t left = lengths_[static_cast<size_t>(s)] - first;
      if (left > 0) step.push_back({s, std::min(left, n_tokens)});
    }
    steps.push_back(step);
  }
  return steps;
}

std::vector<PagedStep> PagedCase::one_by_one() const {
  std::vector<PagedStep> steps;
  for (int32_t s = 0; s < n_sequences(); ++s) {
    const int32_t length = lengths_[static_cast<size_t>(s)], alone = std::min(length, 8);
    if (length > alone) steps.push_back({{s, length - alone}});
    for (int32_t i = 0; i < alone; ++i) steps.push_back({{s, 1}});
  }
  return steps;
}

}  // namespace tramontane::ops
