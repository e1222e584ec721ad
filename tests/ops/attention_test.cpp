// rope_store_kv and attention, tested together: what one stores, only the other reads.
#include <algorithm>

#include "tests/ops/paged_case.h"

namespace tramontane::ops {
namespace {

class AttentionTest : public OpsTest {
 protected:
  void expect_right(PagedCase& paged, const std::vector<PagedStep>& steps) {
    const auto backend = make_backend();
    const Values out = paged.run(*backend, steps);
    paged.expect_rotated(GetParam().name);
    paged.expect_attention(out, backend->act_dtype(), GetParam().name, GetParam().attention_rounding);
  }

  // Every cut of the work, on 1, 2 and 3 threads, gives the same bits.
  void expect_one_result(PagedCase& paged, const std::vector<std::vector<PagedStep>>& plans) {
    Values reference;
    for (int threads = 1; threads <= most_threads(); ++threads) {
      const auto backend = make_backend(threads);
      for (size_t i = 0; i < plans.size(); ++i) {
        const Values out = paged.run(*backend, plans[i]);
        if (reference.empty()) reference = out;
        expect_same_bits(out, reference,
                         "plan " + std::to_string(i) + " on " + std::to_string(threads) + " threads");
      }
    }
  }
};

TEST_P(AttentionTest, SmolLm2Prompts) {
  PagedCase paged({9, 3, 64, 0}, {70, 1, 17, 33}, 1);
  expect_right(paged, paged.at_once());
}

TEST_P(AttentionTest, MistralShapeAcrossChunksOfKeys) {
  PagedCase paged({32, 8, 128, 0}, {300}, 2);
  expect_right(paged, paged.in_chunks(150));
}

TEST_P(AttentionTest, SlidingWindow) {
  for (int32_t window : {1, 5, 16, 100, 300}) {
    SCOPED_TRACE(window);
    PagedCase paged({4, 2, 32, window}, {330, 90}, 3);
    expect_right(paged, paged.in_chunks(77));
  }
}

TEST_P(AttentionTest, OddShapes) {
  const AttentionShape shapes[] = {{1, 1, 2, 0},   {2, 1, 8, 0},   {6, 2, 16, 0},  {5, 5, 80, 0},
                                   {7, 1, 96, 0},  {2, 2, 256, 0}, {40, 1, 32, 0}, {70, 2, 18, 0},
                                   {4, 1, 512, 0}, {3, 1, 34, 5}};
  const std::vector<int32_t>& known = GetParam().head_dims;
  for (const AttentionShape& shape : shapes) {
    if (!known.empty() && std::ranges::find(known, shape.head_dim) == known.end()) continue;
    SCOPED_TRACE(testing::Message() << shape.n_heads << "/" << shape.n_kv_heads << " heads of "
                                    << shape.head_dim);
    PagedCase paged(shape, {19, 1, 40}, 4);
    expect_right(paged, paged.in_chunks(13));
  }
}

TEST_P(AttentionTest, OneThreadReusedForGrowingHeads) {
  const auto backend = make_backend();
  for (int32_t head_dim : {16, 128, 64}) {
    PagedCase paged({2, 1, head_dim, 0}, {300}, 5);
    const Values out = paged.run(*backend, paged.in_chunks(299));
    paged.expect_attention(out, backend->act_dtype(), std::to_string(head_dim),
                           GetParam().attention_rounding);
  }
}

TEST_P(AttentionTest, SameBitsHoweverCut) {
  PagedCase paged({9, 3, 64, 0}, {37, 1, 90, 16}, 6);
  expect_one_result(paged, {paged.at_once(), paged.in_chunks(1), paged.in_chunks(7), paged.one_by_one()});
}

TEST_P(AttentionTest, SameBitsHoweverCutInLongContexts) {
  PagedCase paged({4, 4, 16, 0}, {1100}, 7);  // 4 tiles of 5 chunks when generating: two waves
  expect_one_result(paged, {paged.at_once(), paged.in_chunks(311), paged.one_by_one()});
}

TEST_P(AttentionTest, SameBitsHoweverCutWithSlidingWindow) {
  PagedCase paged({4, 2, 16, 270}, {700, 45}, 8);
  expect_one_result(paged, {paged.at_once(), paged.in_chunks(16), paged.in_chunks(50), paged.one_by_one()});
}

TRAMONTANE_OPS_SUITE(AttentionTest);

}  // namespace
}  // namespace tramontane::ops
