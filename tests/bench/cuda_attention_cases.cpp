#include <algorithm>
#include <numeric>

#include "cuda/attention.h"
#include "cuda/rope.h"
#include "cuda/rowwise.h"
#include "tests/bench/cuda_cases.h"

namespace tramontane::cuda {
namespace {

constexpr AttentionShape kMistral{.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .sliding_window = 0};

// Sequences of one length each of which computes as many rows, but for the last one where that is a prompt;
// their pages lie in a row.
struct Step {
  int32_t n_seqs, n_rows, kv_len, prompt_rows;
  Buffer q_starts, kv_lens, table, positions, slots, qkv, out, pages, workspace, rope;

  int32_t rows_of(int32_t s) const { return prompt_rows > 0 && s == n_seqs - 1 ? prompt_rows : n_rows; }
  int32_t n_tokens() const { return (n_seqs - 1) * n_rows + rows_of(n_seqs - 1); }
  int32_t blocks() const { return (kv_len + kBlockTokens - 1) / kBlockTokens; }
  size_t page_bytes() const { return static_cast<size_t>(2 * kMistral.kv_cols() * kBlockTokens) * 2; }

  void make() {
    std::vector<int32_t> starts, ids(static_cast<size_t>(n_seqs * blocks())), position, slot;
    std::iota(ids.begin(), ids.end(), 0);
    for (int32_t s = 0; s < n_seqs; ++s) {
      starts.push_back(static_cast<int32_t>(position.size()));
      for (int32_t t = kv_len - rows_of(s); t < kv_len; ++t) {
        position.push_back(t);
        slot.push_back(s * blocks() * kBlockTokens + t);
      }
    }
    starts.push_back(n_tokens());
    q_starts = device_integers(starts), table = device_integers(ids), positions = device_integers(position),
    slots = device_integers(slot);
    kv_lens = device_integers(std::vector<int32_t>(static_cast<size_t>(n_seqs), kv_len));
    qkv = random_device_bytes(static_cast<size_t>(n_tokens() * kMistral.qkv_cols()) * 4);
    out = zeroed_device_bytes(static_cast<size_t>(n_tokens() * kMistral.q_cols()) * 2);
    rope = random_device_bytes(static_cast<size_t>(kv_len) * kMistral.head_dim * 4);
    workspace = zeroed_device_bytes(attention_workspace_bytes(kMistral, n_tokens(), n_seqs, kv_len));
    pages = random_device_bytes(page_bytes() * static_cast<size_t>(n_seqs * blocks()));
  }
  BatchView batch() const {
    BatchView b;
    b.positions = positions.view(DType::i32, 1, n_tokens()), b.slots = slots.view(DType::i32, 1, n_tokens());
    b.q_starts = q_starts.view(DType::i32, 1, n_seqs + 1), b.kv_lens = kv_lens.view(DType::i32, 1, n_seqs);
    b.block_table = table.view(DType::i32, n_seqs, blocks());
    b.n_tokens = n_tokens(), b.n_seqs = n_seqs, b.max_q = std::max(n_rows, prompt_rows), b.max_kv = kv_len;
    return b;
  }
  TensorView qkv_view() const { return qkv.view(DType::f32, n_tokens(), kMistral.qkv_cols()); }
  KvLayer layer() const { return {pages.data(), n_seqs * blocks()}; }
};

std::shared_ptr<Step> step(int32_t n_seqs, int32_t n_rows, int32_t kv_len, int32_t prompt_rows = 0) {
  auto made = std::make_shared<Step>(
      Step{n_seqs, n_rows, kv_len, prompt_rows, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
  made->make();
  return made;
}

Case attention_case(const char* kind, int32_t n_seqs, int32_t n_rows, int32_t kv_len,
                    int32_t prompt_rows = 0) {
  const int32_t alike = prompt_rows > 0 ? n_seqs - 1 : n_seqs;
  const double keys = double(n_seqs) * kv_len, rows = double(alike) * n_rows + prompt_rows;
  // Pairs of a row and a key that it sees.
  const double seen = double(alike) * n_rows * (kv_len - (n_rows - 1) / 2.0) +
                      prompt_rows * (kv_len - (prompt_rows - 1) / 2.0);
  return {
      std::string("attention/") + kind + "/seqs:" + std::to_string(n_seqs) + "/kv:" + std::to_string(kv_len),
      keys * double(kMistral.kv_cols()) * 2 * 2 + rows * double(kMistral.q_cols()) * (4 + 2),
      4.0 * seen * double(kMistral.q_cols()), 1, [=]() -> Launch {
        return [s = step(n_seqs, n_rows, kv_len, prompt_rows)](Stream stream, size_t) {
          launch_attention(stream, s->qkv_view(), s->batch(), kMistral, s->layer(),
                           s->out.view(DType::bf16, s->n_tokens(), kMistral.q_cols()), s->workspace.data());
        };
      }};
}

Case rope_case(int32_t rows) {
  const double values = double(rows) * double(kMistral.qkv_cols());
  return {"rope_store_kv/rows:" + std::to_string(rows),
          values * 4 * 2 + double(rows) * double(kMistral.kv_cols()) * 2 * 2, 0, 1, [=]() -> Launch {
            return [s = step(rows, 1, 1)](Stream stream, size_t) {
              launch_rope_store_kv(stream, s->qkv_view(), s->batch(), kMistral,
                                   s->rope.view(DType::f32, s->kv_len, kMistral.head_dim), s->layer());
            };
          }};
}

struct Buffers {
  Buffer x, delta, w, y;
};

Case norm_case(int64_t rows) {
  constexpr int64_t kCols = 4096;
  const auto count = static_cast<size_t>(rows * kCols);
  return {"add_rmsnorm/rows:" + std::to_string(rows), double(count) * (4 + 4 + 4 + 2) + kCols * 4, 0, 1,
          [=]() -> Launch {
            auto b = std::make_shared<Buffers>();

            b->x = zeroed_device_bytes(count * 4), b->delta = random_device_bytes(count * 4);
            b->w = random_device_bytes(kCols * 4), b->y = zeroed_device_bytes(count * 2);

            return [=](Stream stream, size_t) {
              launch_add_rmsnorm(stream, b->x.view(DType::f32, rows, kCols),
                                 b->delta.view(DType::f32, rows, kCols), b->w.view(DType::f32, 1, kCols),
                                 1e-5f, b->y.view(DType::bf16, rows, kCols));
            };
          }};
}

Case gather_case(int64_t rows) {
  constexpr int64_t kCols = 4096;
  const auto count = static_cast<size_t>(rows * kCols);
  return {"gather_rows/rows:" + std::to_string(rows), double(count) * (4 + 4), 0, 1, [=]() -> Launch {
            auto b = std::make_shared<Buffers>();
            std::vector<int32_t> ids(static_cast<size_t>(rows));
            std::iota(ids.rbegin(), ids.rend(), 0);
            b->x = random_device_bytes(count * 4), b->y = zeroed_device_bytes(count * 4);
            b->w = device_integers(ids);
            return [=](Stream stream, size_t) {
              launch_gather_rows(stream, b->x.view(DType::f32, rows, kCols), b->w.view(DType::i32, 1, rows),
                                 b->y.view(DType::f32, rows, kCols));
            };
          }};
}

Case silu_case(int64_t rows) {
  constexpr int64_t kCols = 14336;
  const auto count = static_cast<size_t>(rows * kCols);
  return {"silu_mul/rows:" + std::to_string(rows), double(count) * (4 + 4 + 2), 0, 1, [=]() -> Launch {
            auto b = std::make_shared<Buffers>();

            b->x = random_device_bytes(count * 8), b->y = zeroed_device_bytes(count * 2);

            return [=](Stream stream, size_t) {
              launch_silu_mul(stream, b->x.view(DType::f32, rows, 2 * kCols),
                              b->y.view(DType::bf16, rows, kCols));
            };
          }};
}

}  // namespace

std::vector<Case> attention_cases(const DeviceLimits&) {
  std::vector<Case> cases;
  for (const int32_t n_seqs : {1, 8, 64}) {
    for (const int32_t kv_len : {512, 4096, 32768}) {
      if (int64_t{n_seqs} * kv_len <= int64_t{1} << 19)
        cases.push_back(attention_case("decode", n_seqs, 1, kv_len));
    }
  }
  for (const int32_t length : {512, 2048, 8192})
    cases.push_back(attention_case("prefill", 1, length, length));
  // 15 or 63 that decode, and a chunk of a prompt.
  for (const int32_t n_seqs : {16, 64})
    cases.push_back(attention_case("mixed", n_seqs, 1, 2048, 512 - n_seqs + 1));
  return cases;
}

std::vector<Case> rowwise_cases(const DeviceLimits&) {
  std::vector<Case> cases;
  for (const int32_t rows : {1, 64, 2048}) {
    cases.push_back(norm_case(rows));
    cases.push_back(silu_case(rows));
    cases.push_back(rope_case(rows));
    cases.push_back(gather_case(rows));
  }
  return cases;
}

}  // namespace tramontane::cuda
