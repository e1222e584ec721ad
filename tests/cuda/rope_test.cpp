// rope_store_kv: the rotation bit for bit, and every byte of the cache it writes or leaves alone.
#include "cuda/rope.h"

#include <cmath>

#include "tests/cuda/device_tensor.h"

namespace tramontane::cuda {
namespace {

constexpr int32_t kBlocks = 5, kMaxPosition = 70;

struct RopeCase {
  AttentionShape shape;
  int pad;
};
void PrintTo(const RopeCase& c, std::ostream* out) {
  *out << c.shape.n_heads << "/" << c.shape.n_kv_heads << " heads of " << c.shape.head_dim;
}

Values rope_table(int32_t head_dim) {
  Values table;
  for (int32_t position = 0; position < kMaxPosition; ++position) {
    for (int32_t d = 0; d < head_dim; d += 2) {
      const double angle = position * std::pow(10000.0, -double(d) / head_dim);
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

class Rope : public testing::TestWithParam<RopeCase> {};

TEST_P(Rope, RotatesAndStores) {
  const auto [shape, pad] = GetParam();
  const int32_t dim = shape.head_dim;
  const std::vector<int32_t> positions = {0, 3, 17, kMaxPosition - 1, 5};
  const std::vector<int32_t> slots = {2 * kBlockTokens + 15, 0, kBlocks * kBlockTokens - 1, -1, 7};
  const auto rows = static_cast<int64_t>(positions.size()), cols = shape.qkv_cols();
  Values qkv = random_values(static_cast<size_t>(rows * cols), 1);
  const Values table = rope_table(dim);
  const auto page = static_cast<size_t>(2 * shape.kv_cols() * kBlockTokens);
  Values cache(kBlocks * page, 0.75f);
  const DeviceTensor d_qkv(DType::f32, rows, cols, qkv, cols + pad),
      d_rope(DType::f32, kMaxPosition, dim, table);
  const DeviceTensor d_cache(DType::bf16, kBlocks, static_cast<int64_t>(page), cache);
  const DeviceTensor d_positions(positions), d_slots(slots);
  BatchView batch;
  batch.positions = d_positions.view();
  batch.slots = d_slots.view();
  batch.n_tokens = static_cast<int32_t>(rows);
  launch_rope_store_kv(nullptr, d_qkv.view(), batch, shape, d_rope.view(), {d_cache.view().data, kBlocks});

  for (size_t r = 0; r < positions.size(); ++r) {
    float* row = qkv.data() + static_cast<int64_t>(r) * cols;
    for (int64_t c = 0; c < shape.q_cols() + shape.kv_cols(); c += 2) {
      const float* turn = table.data() + int64_t{positions[r]} * dim + c % dim;
      const float a = row[c], b = row[c + 1];
      row[c] = a * turn[0] - b * turn[1];
      row[c + 1] = a * turn[1] + b * turn[0];
    }
    if (slots[r] < 0) continue;
    for (int32_t part = 0; part < 2; ++part) {
      for (int32_t head = 0; head < shape.n_kv_heads; ++head) {
        for (int32_t d = 0; d < dim; ++d) {
          const int64_t head_page = (int64_t{slots[r] / kBlockTokens} * 2 + part) * shape.n_kv_heads + head;
          const int64_t column = shape.q_cols() + part * shape.kv_cols() + int64_t{head} * dim + d;
          cache[static_cast<size_t>((head_page * kBlockTokens + slots[r] % kBlockTokens) * dim + d)] =
              stored_as_bf16(row[column]);
        }
      }
    }
  }
  expect_same_bits(d_qkv.download(), qkv, "rotated rows");
  expect_same_bits(d_cache.download(), cache, "cache");
}

INSTANTIATE_TEST_SUITE_P(All, Rope,
                         testing::Values(RopeCase{{32, 8, 128, 0}, 0}, RopeCase{{32, 8, 128, 0}, 2},
                                         RopeCase{{9, 3, 64, 0}, 4}, RopeCase{{8, 2, 8, 0}, 0},
                                         RopeCase{{5, 5, 80, 0}, 0}, RopeCase{{7, 1, 96, 0}, 1},
                                         RopeCase{{2, 1, 256, 0}, 0}, RopeCase{{3, 1, 18, 0}, 0},
                                         RopeCase{{1, 1, 2, 0}, 0}));

}  // namespace
}  // namespace tramontane::cuda
