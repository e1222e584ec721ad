// QKV + RoPE + KV append and gate/up + SiLU in one launch, with the norm before or after it, give the bits of
// the separate operations, which have tests of their own.
#include <array>
#include <bit>

#include "cuda/linear.h"
#include "cuda/rope.h"
#include "cuda/rowwise.h"
#include "tests/cuda/device_tensor.h"
#include "tests/cuda/weights.h"

namespace tramontane::cuda {
namespace {

constexpr float kEps = 1e-5f;

// Rows of the residual stream, and h: they normalised.
struct Rows {
  Rows(int64_t rows, int64_t dim)
      : x(DType::f32, rows, dim, random_values(static_cast<size_t>(rows * dim), 31, -3, 3), dim + 4),
        norm(DType::f32, 1, dim, random_values(static_cast<size_t>(dim), 32, 0.5f, 1.5f)),
        h(DType::bf16, rows, dim, {}, (dim + 15) / 8 * 8) {
    launch_add_rmsnorm(nullptr, x.view(), {}, norm.view(), kEps, h.view());
  }

  const DeviceTensor x, norm, h;
};

Values first_columns(const Values& all, int64_t rows, int64_t cols) {
  const size_t width = all.size() / static_cast<size_t>(rows);
  Values result;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = all.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r) * width);
    result.insert(result.end(), row, row + cols);
  }
  return result;
}

// Positions and slots of a step's rows, every eleventh of which is padding, and room for their keys and
// values.
struct Step {
  Step(const AttentionShape& shape, int32_t n_rows)
      : n_blocks(static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(n_rows / kBlockTokens + 2)))),
        positions(numbers(n_rows, [](int32_t r) { return 5 * r + 2; })),
        slots(numbers(
            n_rows,
            [this](int32_t r) { return r % 11 == 1 ? -1 : (7 * r + 15) % (n_blocks * kBlockTokens); })),
        rope(DType::f32, 5 * n_rows, shape.head_dim,
             random_values(static_cast<size_t>(5 * n_rows * shape.head_dim), 34)),
        page_rows(int64_t{n_blocks} * 2 * shape.n_kv_heads * kBlockTokens),
        empty(static_cast<size_t>(page_rows * shape.head_dim), 9.0f) {
    batch.positions = positions.view(), batch.slots = slots.view(), batch.n_tokens = n_rows;
  }

  template <class Number>
  static std::vector<int32_t> numbers(int32_t count, const Number& number) {
    std::vector<int32_t> result;
    for (int32_t r = 0; r < count; ++r) result.push_back(number(r));
    return result;
  }

  const int32_t n_blocks;
  const DeviceTensor positions, slots, rope;
  const int64_t page_rows;
  const Values empty;
  BatchView batch{};
};

// What one way of computing it leaves in qkv and in the pages.
struct Qkv {
  Qkv(const AttentionShape& shape, const Step& step)
      : qkv(DType::f32, step.batch.n_tokens, shape.qkv_cols(), {}, shape.qkv_cols() + 5),
        pages(DType::bf16, step.page_rows, shape.head_dim, step.empty),
        kv{pages.view().data, step.n_blocks} {}

  void expect_same(const Qkv& want, int64_t q_cols, const std::string& what) const {
    const int64_t rows = qkv.view().rows;
    expect_same_bits(first_columns(qkv.download(), rows, q_cols),
                     first_columns(want.qkv.download(), rows, q_cols), what + ": q");
    expect_same_bits(pages.download(), want.pages.download(), what + ": pages");
  }

  const DeviceTensor qkv, pages;
  const KvLayer kv;
};

void check_qkv(const WeightFormat& format, const AttentionShape& shape, int64_t dim, int32_t n_rows) {
  const std::string what = format.name + ", " + std::to_string(n_rows) + " rows of " + std::to_string(dim) +
                           ", head_dim " + std::to_string(shape.head_dim);
  const Matrix w = upload(random_matrix(format, shape.qkv_cols(), dim, 33));
  const Rows rows(n_rows, dim);
  const Step step(shape, n_rows);
  const Qkv want(shape, step), got(shape, step), with_norm(shape, step);

  const TensorView h = rows.h.view();
  launch_linear(nullptr, h, w, want.qkv.view());
  launch_rope_store_kv(nullptr, want.qkv.view(), step.batch, shape, step.rope.view(), want.kv);
  ASSERT_EQ(can_fuse_rope(h), dim % 8 == 0) << what;
  if (can_fuse_rope(h)) {
    launch_qkv_rope(nullptr, h, w, got.qkv.view(), step.batch, shape, step.rope.view(), got.kv);
    got.expect_same(want, shape.q_cols(), what);
  }
  if (n_rows > kFusedRows) return;
  ASSERT_TRUE(can_fuse_norm(rows.x.view(), rows.norm.view(), w)) << what;
  launch_norm_qkv_rope(nullptr, rows.x.view(), rows.norm.view(), kEps, w, with_norm.qkv.view(), step.batch,
                       shape, step.rope.view(), with_norm.kv);
  with_norm.expect_same(want, shape.q_cols(), what + ", with the norm");
}

void check_gate_up(const WeightFormat& format, int64_t hidden, int64_t dim, int64_t n_rows) {
  const std::string what = format.name + ", " + std::to_string(n_rows) + " rows, " + std::to_string(hidden) +
                           " x " + std::to_string(dim);
  const Matrix w = upload(random_matrix(format, 2 * hidden, dim, 35));
  const Rows rows(n_rows, dim);
  const DeviceTensor gate_up(DType::f32, n_rows, 2 * hidden),
      want(DType::bf16, n_rows, hidden, {}, hidden + 2), got(DType::bf16, n_rows, hidden, {}, hidden + 2),
      with_norm(DType::bf16, n_rows, hidden, {}, hidden + 2);
  const TensorView h = rows.h.view();
  launch_linear(nullptr, h, w, gate_up.view());
  launch_silu_mul(nullptr, gate_up.view(), want.view());
  const Values expected = want.download();
  ASSERT_TRUE(can_fuse_silu(h, w, got.view())) << what;
  launch_gate_up_silu(nullptr, h, w, got.view());
  expect_same_bits(got.download(), expected, what);
  if (n_rows > kFusedRows) return;
  ASSERT_TRUE(can_fuse_gate_up(rows.x.view(), rows.norm.view(), w, with_norm.view())) << what;
  launch_norm_gate_up_silu(nullptr, rows.x.view(), rows.norm.view(), kEps, w, with_norm.view());
  expect_same_bits(with_norm.download(), expected, what + ", with the norm");
}

TEST(FusedLinear, EveryFormatHasTheBitsOfItsParts) {
  const AttentionShape shape{.n_heads = 3, .n_kv_heads = 1, .head_dim = 64, .sliding_window = 0};
  for (const WeightFormat& format : weight_formats()) {
    check_qkv(format, shape, 384, 3);
    check_gate_up(format, 48, 384, 5);
  }
}

// gemv_kernel's blocks take up to 16, 32 and 64 rows, gemm_kernel's 64: one row in a block, all of them, and
// blocks after the first.
class FusedRows : public testing::TestWithParam<int32_t> {};

TEST_P(FusedRows, HaveTheBitsOfTheirPartsInEveryFormat) {
  const AttentionShape shape{.n_heads = 4, .n_kv_heads = 2, .head_dim = 32, .sliding_window = 0};
  for (const WeightFormat& format : weight_formats()) {
    check_qkv(format, shape, 384, GetParam());
    check_gate_up(format, 80, 384, GetParam());  // 5 units: blocks of several are not full
  }
}
INSTANTIATE_TEST_SUITE_P(All, FusedRows, testing::Values(9, 16, 17, 33, 64, 65, 130),
                         testing::PrintToStringParamName());

TEST(FusedLinear, AnyNumberOfFewRows) {
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
  for (const int32_t rows : {12, 40, 70}) {
    check_qkv(weight_format("bf16"), {3, 1, 70, 0}, 200, rows);
    check_qkv(weight_format("q4_0"), {4, 2, 96, 0}, 416, rows);
    check_qkv(weight_format("q6_k"), {1, 1, 256, 0}, 272, rows);
    check_qkv(weight_format("mlx4_g64"), {7, 1, 34, 0}, 1216, rows);  // 19 tiles of K, heads of 34
    check_gate_up(weight_format("bf16"), 16, 72, rows);
    check_gate_up(weight_format("q5_k"), 176, 1216, rows);
  }
}

TEST(FusedLinear, WidthOfMistral) {
  for (const char* name : {"bf16", "fp4", "nf4", "mlx4_g64", "q4_1"}) {
    check_qkv(weight_format(name), {1, 1, 128, 0}, 4096, name == std::string("fp4") ? 8 : 1);
    check_gate_up(weight_format(name), 32, 4096, 2);
  }
}

// The shapes themselves: QKV of 32 query and 8 kv heads, gates and ups of 14336.
TEST(FusedLinear, ShapesOfMistral) {
  const AttentionShape shape{.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .sliding_window = 0};
  for (const int32_t rows : {1, 9, 65}) check_qkv(weight_format("fp4"), shape, 4096, rows);
  check_qkv(weight_format("bf16"), shape, 4096, 8);
  check_gate_up(weight_format("fp4"), 14336, 4096, 1);
  check_gate_up(weight_format("mlx4_g64"), 14336, 4096, 8);
  check_gate_up(weight_format("mlx4_g64"), 14336, 4096, 16);
  check_gate_up(weight_format("fp4"), 14336, 4096, 65);
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

TEST(FusedLinear, SaysWhatItCannotFuseForManyRows) {
  const Matrix w = upload(random_matrix(weight_format("bf16"), 96, 4096, 36));
  const DeviceTensor h(DType::bf16, 9, 4096), narrow_h(DType::bf16, 9, 4090, {}, 4096), y(DType::bf16, 9, 48),
      odd_y(DType::bf16, 9, 48, {}, 49);
  EXPECT_TRUE(can_fuse_rope(h.view()));
  EXPECT_TRUE(can_fuse_silu(h.view(), w, y.view()));
  EXPECT_FALSE(can_fuse_silu(h.view(), w, odd_y.view())) << "pairs that are no 4-byte words";
  EXPECT_FALSE(can_fuse_rope(narrow_h.view())) << "the last word of a row is not whole";
  const Matrix narrow = upload(random_matrix(weight_format("bf16"), 80, 4096, 36));
  EXPECT_FALSE(can_fuse_silu(h.view(), narrow, y.view())) << "2.5 row tiles of gates";
  TensorView shifted = h.view();
  shifted.data += 4;
  EXPECT_FALSE(can_fuse_rope(shifted)) << "rows that are not 16-byte words";
  EXPECT_FALSE(can_fuse_silu(shifted, w, y.view())) << "rows that are not 16-byte words";
}

}  // namespace
}  // namespace tramontane::cuda
