// The scalar kernels: plain loops that say what each operation is. T is act_dtype: uint16_t (BF16 bits) or
// float.
#include <algorithm>
#include <cmath>

#include "cpu/kernels.h"
#include "engine/backend/dtype.h"

namespace tramontane {
namespace {

float load(uint16_t bf16) {
  return bf16_to_float(bf16);
}
float load(float value) {
  return value;
}
void store(uint16_t& out, float value) {
  out = float_to_bf16(value);
}
void store(float& out, float value) {
  out = value;
}

template <typename T>
void add_rmsnorm(float* x, const float* delta, const float* w, float eps, void* y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (delta != nullptr) x[i] += delta[i];
    sum += double{x[i]} * double{x[i]};
  }
  const auto scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(n) + double{eps}));
  for (int64_t i = 0; i < n; ++i) store(static_cast<T*>(y)[i], x[i] * scale * w[i]);
}

template <typename T>
void silu_mul(const float* gate, const float* up, void* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(static_cast<T*>(y)[i], gate[i] / (1.0f + std::exp(-gate[i])) * up[i]);
}

void rotate(float* head, const float* rope, int32_t head_dim) {
  for (int32_t d = 0; d < head_dim; d += 2) {
    const float a = head[d], b = head[d + 1], cosine = rope[d], sine = rope[d + 1];
    head[d] = a * cosine - b * sine;
    head[d + 1] = a * sine + b * cosine;
  }
}

template <typename T>
void rope_store_kv(const RopeRow& r) {
  for (int32_t h = 0; h < r.n_heads + r.n_kv_heads; ++h)
    rotate(r.qkv + int64_t{h} * r.head_dim, r.rope, r.head_dim);
  const float* k = r.qkv + int64_t{r.n_heads} * r.head_dim;
  const float* v = k + int64_t{r.n_kv_heads} * r.head_dim;
  for (int32_t h = 0; h < r.n_kv_heads; ++h) {
    const int64_t head = int64_t{h} * r.head_dim;
    T* k_page = static_cast<T*>(r.k_page) + head * kPageTokens;
    T* v_page = static_cast<T*>(r.v_page) + head * kPageTokens;
    for (int32_t d = 0; d < r.head_dim; ++d) {
      store(k_page[(d / 2 * kPageTokens + r.token) * 2 + d % 2], k[head + d]);
      store(v_page[(r.token / 2 * r.head_dim + d) * 2 + r.token % 2], v[head + d]);
    }
  }
}

// scores[t] = q . k of the page's token t
template <typename T>
void score_page(const float* q, const T* k_page, int32_t head_dim, float* scores) {
  float sums[kPageTokens] = {};
  for (int32_t d = 0; d < head_dim; d += 2) {
    const T* pairs = k_page + d * kPageTokens;
    for (int t = 0; t < kPageTokens; ++t)
      sums[t] += q[d] * load(pairs[2 * t]) + q[d + 1] * load(pairs[2 * t + 1]);
  }
  std::copy(sums, sums + kPageTokens, scores);
}

template <typename T>
void attend_one(const AttentionChunk& c, int32_t query, int32_t begin, int32_t end) {
  const float* q = c.q + int64_t{query} * c.head_dim;
  float* scores = c.scores + int64_t{query} * kAttentionChunk;
  float* out = c.out + int64_t{query} * c.head_dim;
  for (int32_t page = begin / kPageTokens; page * kPageTokens < end; ++page) {
    score_page(q, static_cast<const T*>(c.k_pages[page]), c.head_dim, scores + page * kPageTokens);
  }
  const float max = *std::max_element(scores + begin, scores + end);
  float sum = 0;
  for (int32_t t = begin; t < end; ++t) {
    const float p = std::exp(scores[t] - max);
    const T* v = static_cast<const T*>(c.v_pages[t / kPageTokens]);
    v += int64_t{t % kPageTokens / 2} * c.head_dim * 2 + t % 2;
    for (int32_t d = 0; d < c.head_dim; ++d) out[d] += p * load(v[2 * d]);
    sum += p;
  }
  c.max[query] = max;
  c.sum[query] = sum;
}

template <typename T>
void attention(const AttentionChunk& c) {
  std::fill(c.out, c.out + int64_t{c.n_queries} * c.head_dim, 0.0f);
  for (int32_t i = 0; i < c.n_queries; ++i) {
    c.max[i] = kNoScore;
    c.sum[i] = 0;
    if (c.begin[i] < c.end[i]) attend_one<T>(c, i, c.begin[i], c.end[i]);
  }
}

template <typename T>
constexpr CpuKernels kKernels{add_rmsnorm<T>, rope_store_kv<T>, attention<T>, silu_mul<T>};

}  // namespace

const CpuKernels& scalar_kernels() {
  return kKernels<uint16_t>;
}
const CpuKernels& scalar_f32_kernels() {
  return kKernels<float>;
}

}  // namespace tramontane
