// A batch is data: what was added, and the arrays that a backend then sees.
#include "engine/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpu/cpu_backend.h"

namespace tramontane {
namespace {

using testing::ElementsAre;

std::vector<int32_t> values(const TensorView& view) {
  const auto* first = reinterpret_cast<const int32_t*>(view.data);
  return {first, first + view.rows * view.cols};
}

TEST(Batch, LaysSequencesOutOneAfterTheOther) {
  const auto backend = make_cpu_backend({.threads = 1, .kernels = "scalar"});
  Batch batch(*backend, {.max_tokens = 16, .max_sequences = 4, .max_logits = 4, .max_blocks = 3});
  // Twice: nothing of a larger step is left in the next.
  batch.add(std::vector<int32_t>{8, 8, 8, 8, 8}, 40, std::vector<int32_t>{6, 6, 6}, 4);
  batch.upload();
  batch.clear();
  batch.add(std::vector<int32_t>{21, 22}, 0, std::vector<int32_t>{7}, 1);
  batch.add(std::vector<int32_t>{31, 32, 33}, 15, std::vector<int32_t>{4, 2}, 0);
  batch.add(std::vector<int32_t>{41, 42, 43, 44}, 30, std::vector<int32_t>{1, 3, 5}, 3);
  const BatchView view = batch.upload();
  EXPECT_EQ(view.n_tokens, 9);
  EXPECT_EQ(view.n_seqs, 3);
  EXPECT_EQ(view.n_logits, 4);
  EXPECT_EQ(view.max_q, 4);
  EXPECT_EQ(view.max_kv, 34);
  EXPECT_THAT(values(view.tokens), ElementsAre(21, 22, 31, 32, 33, 41, 42, 43, 44));
  EXPECT_THAT(values(view.positions), ElementsAre(0, 1, 15, 16, 17, 30, 31, 32, 33));
  EXPECT_THAT(values(view.slots), ElementsAre(112, 113, 79, 32, 33, 62, 63, 80, 81));
  EXPECT_THAT(values(view.q_starts), ElementsAre(0, 2, 5, 9));
  EXPECT_THAT(values(view.kv_lens), ElementsAre(2, 18, 34));
  EXPECT_THAT(values(view.logit_rows), ElementsAre(1, 6, 7, 8));
  EXPECT_THAT(values(view.block_table), ElementsAre(7, 0, 0, 4, 2, 0, 1, 3, 5));
  EXPECT_EQ(view.block_table.rows, 3);

  batch.clear();
  batch.add(std::vector<int32_t>{51}, 3, std::vector<int32_t>{9}, 1);
  const BatchView small = batch.upload();
  EXPECT_EQ(small.max_q, 1);
  EXPECT_EQ(small.max_kv, 4);
  EXPECT_THAT(values(small.q_starts), ElementsAre(0, 1));
}

}  // namespace
}  // namespace tramontane
