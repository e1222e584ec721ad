// A wrong shape stops the program with a message that names what disagrees.
#include "tests/ops/weights_case.h"

namespace tramontane::ops {
namespace {

class BackendChecksTest : public testing::Test {
 protected:
  BackendChecksTest() : backend_(backend_cases().front().make(1)) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
  }

  std::unique_ptr<Backend> backend_;
};

TEST_F(BackendChecksTest, LinearNamesBothK) {
  const Matrix w = backend_->upload_matrix(random_matrix(weight_formats().front(), 8, 64, 1), "w");
  const DeviceTensor x(*backend_, DType::bf16, 2, 32), y(*backend_, DType::f32, 2, 8),
      wide(*backend_, DType::f32, 2, 9);
  const DeviceTensor right_x(*backend_, DType::bf16, 2, 64), f32_x(*backend_, DType::f32, 2, 64);
  EXPECT_DEATH(backend_->linear(x.view(), w, y.view()), "linear: K of x is 32, K of w is 64");
  EXPECT_DEATH(backend_->linear(right_x.view(), w, wide.view()), "linear: width of y is 9, N of w is 8");
  EXPECT_DEATH(backend_->linear(right_x.view().head(1), w, y.view()),
               "linear: rows of x is 1, rows of y is 2");
  EXPECT_DEATH(backend_->linear(f32_x.view(), w, y.view()), "linear: x is F32, must be BF16");
  EXPECT_DEATH(backend_->linear(right_x.view(), Matrix{}, y.view()), "linear: w was not uploaded");
}

TEST_F(BackendChecksTest, RowwiseOperations) {
  const DeviceTensor f32(*backend_, DType::f32, 2, 32), narrow(*backend_, DType::f32, 2, 16);
  const DeviceTensor bf16(*backend_, DType::bf16, 2, 32), w(*backend_, DType::f32, 1, 32),
      ids(*backend_, {1});
  EXPECT_DEATH(backend_->add_rmsnorm(f32.view(), narrow.view(), w.view(), 1e-5f, bf16.view()),
               "width of x is 32, width of delta is 16");
  EXPECT_DEATH(backend_->silu_mul(f32.view(), bf16.view()),
               "silu_mul: width of gate_up is 32, twice the width of y is 64");
  EXPECT_DEATH(backend_->gather_rows(f32.view(), ids.view(), f32.view()),
               "gather_rows: rows of y is 2, number of rows is 1");
  EXPECT_DEATH(backend_->embed(ids.view(), Matrix{}, f32.view()), "embed: w was not uploaded");
}

TEST_F(BackendChecksTest, AttentionShapes) {
  const DeviceTensor qkv(*backend_, DType::f32, 1, 64), out(*backend_, DType::bf16, 1, 32),
      position(*backend_, {0});
  BatchView batch;
  batch.n_tokens = batch.n_seqs = batch.max_kv = 1;
  batch.positions = position.view();
  const KvLayer none, kv{qkv.view().data, 1};
  EXPECT_DEATH(backend_->attention(qkv.view(), batch, {2, 1, 16, 0}, none, out.view()),
               "attention: the kv layer has no blocks");
  EXPECT_DEATH(backend_->attention(qkv.view(), batch, {3, 2, 8, 0}, kv, out.view()),
               "number of heads is 3, number of kv heads is 2");
  EXPECT_DEATH(backend_->attention(qkv.view(), batch, {2, 1, 15, 0}, kv, out.view()), "head_dim is 15");
  EXPECT_DEATH(backend_->attention(qkv.view(), batch, {2, 1, 8, 0}, kv, out.view()),
               "width of qkv is 64, .* is 32");
  EXPECT_DEATH(backend_->rope_store_kv(qkv.view(), batch, {2, 1, 16, 0}, out.view(), kv),
               "rope_store_kv: slots has no memory");
}

}  // namespace
}  // namespace tramontane::ops
