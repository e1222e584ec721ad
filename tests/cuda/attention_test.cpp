// Paged attention against FP64 over shuffled pages, and bit for bit against itself: however a batch is cut
// into steps, and under every plan, a row has the same bits.
#include "cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cuda/attention_plan.h"
#include "tests/cuda/device_tensor.h"

namespace tramontane::cuda {
namespace {

// In one call, sequence `sequence` computes `n_rows` rows, the last of which is at position `kv_len` - 1.
struct Rows {
  int32_t sequence, n_rows, kv_len;
};
using Call = std::vector<Rows>;

// Sequences with their q, k and v for every position, in pages that hold NaN wherever no token is stored.
class PagedSequences {
 public:
  PagedSequences(AttentionShape shape, std::vector<int32_t> lengths, uint32_t seed)
      : shape_(shape), lengths_(std::move(lengths)) {
    int64_t rows = 0;
    int32_t n_blocks = 3;  // some stay unused
    for (const int32_t length : lengths_) {
      first_row_.push_back(rows);
      rows += length;
      n_blocks += blocks_of(length);
    }
    // Scores of a few units: some keys clearly win, and many still count.
    qkv_ = random_values(static_cast<size_t>(rows * shape.qkv_cols()), seed, -2.0f, 2.0f);
    for (size_t i = 0; i < qkv_.size(); ++i)
      if (static_cast<int64_t>(i) % shape.qkv_cols() >= shape.q_cols()) qkv_[i] = stored_as_bf16(qkv_[i]);
    std::vector<int32_t> ids(static_cast<size_t>(n_blocks));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), std::mt19937(seed));
    Values cache(static_cast<size_t>(n_blocks * 2 * shape.kv_cols() * kBlockTokens), NAN);
    for (size_t s = 0; s < lengths_.size(); ++s) {
      tables_.emplace_back(ids.end() - blocks_of(lengths_[s]), ids.end());
      ids.resize(ids.size() - tables_.back().size());
      for (int32_t p = 0; p < lengths_[s]; ++p) store(cache, static_cast<int32_t>(s), p);
    }
    cache_ = std::make_unique<DeviceTensor>(DType::bf16, n_blocks, 2 * shape.kv_cols() * kBlockTokens, cache);
    KvLayer layer{cache_->view().data, n_blocks};
    layer_ = layer;
  }

  const AttentionShape& shape() const { return shape_; }
  int64_t n_rows() const { return static_cast<int64_t>(qkv_.size()) / shape_.qkv_cols(); }

  // The rows of a call, one after the other. `adjust` may change the plan.
  Values run(const Call& call, const std::function<void(AttentionPlan&)>& adjust = {}, int32_t pad = 0) {
    std::vector<int32_t> q_starts = {0}, kv_lens, table;
    Values qkv;
    BatchView batch;
    const int32_t longest = *std::max_element(lengths_.begin(), lengths_.end());
    const int32_t width = blocks_of(longest);
    for (const Rows& rows : call) {
      const auto s = static_cast<size_t>(rows.sequence);
      q_starts.push_back(q_starts.back() + rows.n_rows);
      kv_lens.push_back(rows.kv_len);
      if (rows.kv_len > 0) table.insert(table.end(), tables_[s].begin(), tables_[s].end());
      table.resize(kv_lens.size() * static_cast<size_t>(width), -1);
      for (int32_t i = 0; i < rows.n_rows; ++i) {
        const int32_t position = rows.kv_len - rows.n_rows + i;
        const auto from =
            qkv_.begin() + (rows.kv_len > 0 ? row_of(rows.sequence, position) : 0) * shape_.qkv_cols();
        qkv.insert(qkv.end(), from, from + shape_.qkv_cols());
      }
      batch.max_q = std::max(batch.max_q, rows.n_rows);
      batch.max_kv = std::max(batch.max_kv, rows.kv_len);
    }
    batch.n_tokens = q_starts.back();
    batch.n_seqs = static_cast<int32_t>(call.size());
    const DeviceTensor d_starts(q_starts), d_lens(kv_lens), d_table(table);
    batch.q_starts = d_starts.view();
    batch.kv_lens = d_lens.view();
    batch.block_table = {d_table.view().data, DType::i32, batch.n_seqs, width, width};
    const DeviceTensor d_qkv(DType::f32, batch.n_tokens, shape_.qkv_cols(), qkv, shape_.qkv_cols() + pad);
    const DeviceTensor out(DType::bf16, batch.n_tokens, shape_.q_cols(), {}, shape_.q_cols() + pad);

    AttentionPlan plan = plan_attention(shape_, batch);
    if (adjust) adjust(plan);
    launch_attention(nullptr, d_qkv.view(), batch, shape_, layer_, out.view(), workspace(batch), plan);
    return out.download();
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

  // Zero when first used; afterwards each call must leave its counters so.
  std::byte* workspace(const BatchView& batch) {
    const size_t bytes = attention_workspace_bytes(shape_, batch.n_tokens, batch.n_seqs, batch.max_kv);
    if (bytes > workspace_bytes_) {
      workspace_ = std::make_unique<DeviceTensor>(std::vector<int32_t>(bytes / 4 + 1, 0));
      workspace_bytes_ = bytes;
    }
    return workspace_->view().data;
  }

  AttentionShape shape_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> first_row_;  // of each sequence in qkv_
  Values qkv_;                      // [rows, qkv_cols], k and v as the cache holds them
  std::vector<std::vector<int32_t>> tables_;
  std::unique_ptr<DeviceTensor> cache_, workspace_;
  size_t workspace_bytes_ = 0;
  KvLayer layer_;
};

// Plans under which all work is done by one of the kernels, and by blocks that share it out differently.
struct PlanCase {
  const char* name;
  void (*adjust)(AttentionPlan&);
};
void all_decode(AttentionPlan& plan, int32_t splits, int32_t max_partials) {
  plan = {.decode_columns = 1 << 20,
          .decode_tiles = 40,
          .splits = splits,
          .prefill_tiles = 0,
          .max_partials = max_partials,
          .partial_rows = kDecodeTile};
}
constexpr PlanCase kPlans[] = {
    {"all prefilled", [](AttentionPlan& p) { p = {.decode_columns = 0, .prefill_tiles = 40}; }},
    {"decoded by one block a tile", [](AttentionPlan& p) { all_decode(p, 1, 0); }},
};

struct ShapeCase {
  AttentionShape shape;
};

std::string name_of_shape(const testing::TestParamInfo<AttentionShape>& info) {
  const AttentionShape& s = info.param;
  return "heads" + std::to_string(s.n_heads) + "over" + std::to_string(s.n_kv_heads) + "of" +
         std::to_string(s.head_dim) +
         (s.sliding_window > 0 ? "window" + std::to_string(s.sliding_window) : "");
}

class AttentionShapes : public testing::TestWithParam<AttentionShape> {};

// Decode rows, short and long prompts, whole and in part, and padding, in one call.
TEST_P(AttentionShapes, MixedBatch) {
  PagedSequences sequences(GetParam(), {70, 1, 300, 33, 130, 20}, 1);
  const Call call = {{0, 70, 70}, {1, 1, 1}, {2, 1, 290}, {0, 1, 0}, {3, 5, 33}, {4, 40, 130}, {5, 1, 20}};
  sequences.expect_right(call, sequences.run(call), 6);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionShapes,
                         testing::Values(AttentionShape{8, 2, 8, 0}, AttentionShape{8, 2, 16, 0},
                                         AttentionShape{6, 2, 32, 0}, AttentionShape{9, 3, 64, 0},
                                         AttentionShape{5, 5, 80, 0}, AttentionShape{7, 1, 96, 0},
                                         AttentionShape{4, 1, 128, 0}, AttentionShape{2, 1, 256, 0},
                                         AttentionShape{8, 1, 64, 0}, AttentionShape{6, 1, 32, 50},
                                         AttentionShape{40, 1, 16, 0}, AttentionShape{70, 1, 8, 90}),
                         name_of_shape);

}  // namespace
}  // namespace tramontane::cuda
