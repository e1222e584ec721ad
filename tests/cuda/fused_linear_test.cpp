// norm + QKV + RoPE + KV append and norm + gate/up + SiLU in one launch give the bits of the separate
// operations, which have tests of their own.
#include <array>

#include "cuda/linear.h"
#include "cuda/rope.h"
#include "cuda/rowwise.h"
#include "tests/cuda/device_tensor.h"
#include "tests/cuda/weights.h"

namespace tramontane::cuda {
namespace {

constexpr float kEps = 1e-5f;

struct Rows {
  Rows(int64_t rows, int64_t dim)
      : x(DType::f32, rows, dim, random_values(static_cast<size_t>(rows * dim), 31, -3, 3), dim + 4),
        norm(DType::f32, 1, dim, random_values(static_cast<size_t>(dim), 32, 0.5f, 1.5f)) {}

  DeviceTensor x, norm;
};

// h · w^T of the normalised rows, by the separate operations.
void separate(const Rows& rows, const Matrix& w, TensorView y) {
  const DeviceTensor h(DType::bf16, y.rows, w.k);
  launch_add_rmsnorm(nullptr, rows.x.view(), {}, rows.norm.view(), kEps, h.view());
  launch_linear(nullptr, h.view(), w, y);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << emulator::report();
}

constexpr int32_t kBlocks = 3;

Values first_columns(const Values& all, int64_t rows, int64_t cols) {
  const size_t width = all.size() / static_cast<size_t>(rows);
  Values result;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = all.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r) * width);
    result.insert(result.end(), row, row + cols);
  }
  return result;
}

void check_qkv(const WeightFormat& format, const AttentionShape& shape, int64_t dim, int32_t n_rows) {
  const std::string what = format.name + ", " + std::to_string(n_rows) + " rows of " + std::to_string(dim) +
                           ", head_dim " + std::to_string(shape.head_dim);
  const Matrix w = upload(random_matrix(format, shape.qkv_cols(), dim, 33));
  const Rows rows(n_rows, dim);
  std::vector<int32_t> positions, slots;
  for (int32_t r = 0; r < n_rows; ++r) {
    positions.push_back(5 * r + 2);
    slots.push_back(r == 1 ? -1 : (7 * r + 15) % (kBlocks * kBlockTokens));  // the second row is padding
  }
  const DeviceTensor d_positions(positions), d_slots(slots);
  BatchView batch{};
  batch.positions = d_positions.view(), batch.slots = d_slots.view(), batch.n_tokens = n_rows;
  const DeviceTensor rope(DType::f32, 64, shape.head_dim,
                          random_values(static_cast<size_t>(64 * shape.head_dim), 34));
  const int64_t page_rows = int64_t{kBlocks} * 2 * shape.n_kv_heads * kBlockTokens;
  const Values empty(static_cast<size_t>(page_rows * shape.head_dim), 9.0f);
  const DeviceTensor want_pages(DType::bf16, page_rows, shape.head_dim, empty),
      got_pages(DType::bf16, page_rows, shape.head_dim, empty);
  const DeviceTensor want(DType::f32, n_rows, shape.qkv_cols(), {}, shape.qkv_cols() + 5),
      got(DType::f32, n_rows, shape.qkv_cols(), {}, shape.qkv_cols() + 5);

  separate(rows, w, want.view());
  launch_rope_store_kv(nullptr, want.view(), batch, shape, rope.view(), {want_pages.view().data, kBlocks});
  ASSERT_TRUE(can_fuse_norm(rows.x.view(), rows.norm.view(), w)) << what;
  launch_norm_qkv_rope(nullptr, rows.x.view(), rows.norm.view(), kEps, w, got.view(), batch, shape,
                       rope.view(), {got_pages.view().data, kBlocks});
  expect_same_bits(first_columns(got.download(), n_rows, shape.q_cols()),
                   first_columns(want.download(), n_rows, shape.q_cols()), what + ": q");
  expect_same_bits(got_pages.download(), want_pages.download(), what + ": pages");
}

void check_gate_up(const WeightFormat& format, int64_t hidden, int64_t dim, int64_t n_rows) {
  const std::string what = format.name + ", " + std::to_string(n_rows) + " rows, " + std::to_string(hidden) +
                           " x " + std::to_string(dim);
  const Matrix w = upload(random_matrix(format, 2 * hidden, dim, 35));
  const Rows rows(n_rows, dim);
  const DeviceTensor gate_up(DType::f32, n_rows, 2 * hidden),
      want(DType::bf16, n_rows, hidden, {}, hidden + 2), got(DType::bf16, n_rows, hidden, {}, hidden + 2);
  separate(rows, w, gate_up.view());
  launch_silu_mul(nullptr, gate_up.view(), want.view());
  ASSERT_TRUE(can_fuse_gate_up(rows.x.view(), rows.norm.view(), w, got.view())) << what;
  launch_norm_gate_up_silu(nullptr, rows.x.view(), rows.norm.view(), kEps, w, got.view());
  expect_same_bits(got.download(), want.download(), what);
}

TEST(FusedLinear, EveryFormatHasTheBitsOfItsParts) {
  const AttentionShape shape{.n_heads = 3, .n_kv_heads = 1, .head_dim = 64, .sliding_window = 0};
  for (const WeightFormat& format : weight_formats()) {
    check_qkv(format, shape, 384, 3);
    check_gate_up(format, 48, 384, 5);
  }
}

TEST(FusedLinear, AnyNumberOfRows) {
  for (int32_t rows = 1; rows <= kFusedRows; ++rows) {
    check_qkv(weight_format("q4_1"), {2, 2, 64, 0}, 576, rows);
    check_gate_up(weight_format("q4_1"), 32, 576, rows);
  }
}

// Heads that are no power of two, and widths that end inside a tile of K.
TEST(FusedLinear, OddShapes) {
  check_qkv(weight_format("bf16"), {2, 1, 80, 0}, 164, 2);
  check_qkv(weight_format("q4_0"), {4, 2, 96, 0}, 416, 4);
  check_qkv(weight_format("q6_k"), {1, 1, 256, 0}, 272, 8);
  check_qkv(weight_format("bf16"), {1, 1, 70, 0}, 64, 1);  // 210 outputs: the last tile is not full
  check_gate_up(weight_format("q6_k"), 64, 272, 8);
}

TEST(FusedLinear, WidthOfMistral) {
  for (const char* name : {"bf16", "fp4", "nf4", "mlx4_g64", "q4_1"}) {
    check_qkv(weight_format(name), {1, 1, 128, 0}, 4096, name == std::string("fp4") ? 8 : 1);
    check_gate_up(weight_format(name), 32, 4096, 2);
  }
}

// More tiles than blocks that run at once: a block takes several.
TEST(FusedLinear, BlocksTakeSeveralTiles) {
  check_gate_up(weight_format("bf16"), 16 * 1000, 64, 2);  // the PTX emulator runs 864
}

TEST(FusedLinear, SaysWhatItCannotFuse) {
  const Matrix w = upload(random_matrix(weight_format("bf16"), 96, 4096, 36));
  const DeviceTensor x(DType::f32, 9, 4096), norm(DType::f32, 1, 4096), y(DType::bf16, 9, 48);
  EXPECT_TRUE(can_fuse_norm(x.view().head(8), norm.view(), w));
  EXPECT_FALSE(can_fuse_norm(x.view(), norm.view(), w)) << "nine rows";
  EXPECT_TRUE(can_fuse_gate_up(x.view().head(8), norm.view(), w, y.view().head(8)));
  const Matrix narrow = upload(random_matrix(weight_format("bf16"), 80, 4096, 36));
  EXPECT_FALSE(can_fuse_gate_up(x.view().head(8), norm.view(), narrow, y.view().head(8)))
      << "2.5 row tiles of gates";
  TensorView shifted = x.view().head(2);
  shifted.data += 4;
  EXPECT_FALSE(can_fuse_norm(shifted, norm.view(), w)) << "rows that are not 16-byte words";
  const Matrix wide = upload(random_matrix(weight_format("bf16"), 16, 14336, 36));
  const DeviceTensor wide_x(DType::f32, 8, 14336), wide_norm(DType::f32, 1, 14336);
  EXPECT_FALSE(can_fuse_norm(wide_x.view(), wide_norm.view(), wide)) << "more than shared memory holds";
}

}  // namespace
}  // namespace tramontane::cuda
