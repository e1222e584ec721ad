// PagedCase: some sequences, their q, k and v for every position, and a shuffled block table. It runs them
// through rope_store_kv and attention in steps of any cut, and computes the same in FP64.
#pragma once

#include <vector>

#include "tests/ops/ops_support.h"

namespace tramontane::ops {

// In one step, sequence `sequence` computes its next `n_tokens` positions.
struct PagedChunk {
  int32_t sequence, n_tokens;
};
using PagedStep = std::vector<PagedChunk>;

class PagedCase {
 public:
  PagedCase(AttentionShape shape, std::vector<int32_t> lengths, uint32_t seed);

  int32_t n_sequences() const { return static_cast<int32_t>(lengths_.size()); }
  const std::vector<int32_t>& lengths() const { return lengths_; }

  // Computes all positions of all sequences in the given steps. Returns attention's output [sum of lengths,
  // q_cols], sequence after sequence, and leaves the rotated rows in qkv() likewise.
  Values run(Backend& backend, const std::vector<PagedStep>& steps);

  // After run(): compares the rotated rows, and `out`, with FP64. `rounding`: BackendCase's
  // attention_rounding.
  void expect_rotated(const std::string& what) const;
  void expect_attention(const Values& out, DType act_dtype, const std::string& what,
                        double rounding = 0) const;

  // Plans that compute everything.
  std::vector<PagedStep> at_once() const;  // one step, every row
  std::vector<PagedStep> in_chunks(
      int32_t n_tokens) const;  // each sequence `n_tokens` rows a step, side by side
  std::vector<PagedStep> one_by_one()
      const;  // each sequence alone, its prompt but for 8 rows first, then row by row

 private:
  struct StepTensors;
  void run_step(Backend& backend, const PagedStep& step, std::vector<int32_t>& done, TensorView rope,
                KvLayer kv, Values& out);
  int64_t row_of(int32_t sequence, int32_t position) const {
    return first_row_[static_cast<size_t>(sequence)] + position;
  }
  void expect_row(int32_t sequence, int32_t position, DType act_dtype, double rounding,
                  std::vector<double>& want, std::vector<double>& bound) const;

  AttentionShape shape_;
  std::vector<int32_t> lengths_;
  std::vector<int64_t> first_row_;  // of each sequence in the arrays below
  Values original_, rotated_;       // [rows, qkv_cols]
  Values rope_;                     // [longest, head_dim]
  std::vector<std::vector<int32_t>> blocks_;
  int32_t n_blocks_ = 0, longest_ = 0;
};

}  // namespace tramontane::ops
