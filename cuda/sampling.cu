#include "cuda/sampling.h"

#include <climits>
#include <cmath>
#include <stdexcept>
#include <string>

#include "cuda/check.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/reduce.cuh"
#include "engine/backend/philox.h"
#include "engine/backend/sampling_math.h"

namespace tramontane::cuda {
namespace {

// One block draws one token, with the most threads that a block can have: a row is one SM's work however few
// rows there are. The row stays in memory: a pass reads it from L1 (128 KB of 32768 logits fit that of most
// data centre GPUs) or L2, 16 bytes a lane, side by side. Held in registers, 32 logits and the search do not
// fit the 64 that such a block's threads have: ptxas spilled 832 bytes a thread.
constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpLanes;
constexpr int kStepIds = 4 * kWarpLanes;  // ids that a warp reads at a time

// Order of floats as order of integers; both zeros are one key.
__device__ uint32_t key_of(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ float value_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ uint64_t warp_sum64(uint64_t value) {
#pragma unroll
  for (int offset = kWarpLanes / 2; offset > 0; offset /= 2)
    value += __shfl_xor_sync(kAllLanes, static_cast<unsigned long long>(value), offset);
  return value;
}

struct Sum {
  uint64_t weight = 0;
  uint32_t count = 0;
};

struct Shared {
  uint64_t weights[2][kWarps];
  uint32_t counts[2][kWarps];
  float candidates[kThreads];
  int n_candidates;
  int id;
};

// Sums and maxima over the block, the same on every thread. Two sets of places take turns, so that a
// reduction needs one barrier: who writes a set again has passed the barrier of the other one, which
// everybody reaches only after reading the first.
class Block {
 public:
  __device__ explicit Block(Shared& shared)
      : shared_(shared),
        warp_(static_cast<int>(threadIdx.x) / kWarpLanes),
        lane_(static_cast<int>(threadIdx.x) % kWarpLanes) {}

  __device__ Sum sum(Sum own) {
    turn_ ^= 1;
    own.weight = warp_sum64(own.weight);
    own.count = __reduce_add_sync(kAllLanes, own.count);
    if (lane_ == 0) {
      shared_.weights[turn_][warp_] = own.weight;
      shared_.counts[turn_][warp_] = own.count;
    }
    __syncthreads();
    return {warp_sum64(shared_.weights[turn_][lane_]),
            __reduce_add_sync(kAllLanes, shared_.counts[turn_][lane_])};
  }
  __device__ uint32_t count(uint32_t own) {
    turn_ ^= 1;
    own = __reduce_add_sync(kAllLanes, own);
    if (lane_ == 0) shared_.counts[turn_][warp_] = own;
    __syncthreads();
    return __reduce_add_sync(kAllLanes, shared_.counts[turn_][lane_]);
  }
  __device__ uint32_t max(uint32_t own) {
    turn_ ^= 1;
    own = __reduce_max_sync(kAllLanes, own);
    if (lane_ == 0) shared_.counts[turn_][warp_] = own;
    __syncthreads();
    return __reduce_max_sync(kAllLanes, shared_.counts[turn_][lane_]);
  }
  // The sum of the warps before this one.
  __device__ uint64_t before_warp(uint64_t own) {
    turn_ ^= 1;
    own = warp_sum64(own);
    if (lane_ == 0) shared_.weights[turn_][warp_] = own;
    __syncthreads();
    return warp_sum64(lane_ < warp_ ? shared_.weights[turn_][lane_] : 0);
  }

 private:
  Shared& shared_;
  int warp_, lane_;
  int turn_ = 0;
};

// A row's values. Each warp owns consecutive ids and walks them 128 at a time, four consecutive ones a lane:
// warps, steps, lanes and elements in ascending order are ids in ascending order. A thread meets only its own
// values, so that passes which change them need no barrier.
class Row {
 public:
  __device__ Row(float* values, int vocab)
      : values_(values), vocab_(vocab), words_(whole_words(values, vocab)) {
    const int share = (vocab + kWarps * kStepIds - 1) / (kWarps * kStepIds) * kStepIds;
    const int warp = static_cast<int>(threadIdx.x) / kWarpLanes;
    begin_ = warp * share + static_cast<int>(threadIdx.x) % kWarpLanes * 4;
    steps_ = (min(share, max(vocab - warp * share, 0)) + kStepIds - 1) / kStepIds;
  }
  // visit(id, value) for every id of this thread.
  template <typename F>
  __device__ void each(F visit) const {
    for (int step = 0; step < steps_; ++step) {
      const int id = begin_ + step * kStepIds;
      const float4 word = load(id);
      if (id < vocab_) visit(id, word.x);
      if (id + 1 < vocab_) visit(id + 1, word.y);
      if (id + 2 < vocab_) visit(id + 2, word.z);
      if (id + 3 < vocab_) visit(id + 3, word.w);
    }
  }
  // value = change(id, value)
  template <typename F>
  __device__ void update(F change) {
    for (int step = 0; step < steps_; ++step) update_word(id(step), change);
  }
  // The same for the four ids from `id` on, in order.
  template <typename F>
  __device__ void update_word(int id, F change) {
    if (id >= vocab_) return;
    float4 word = load(id);
    word.x = change(id, word.x);
    if (id + 1 < vocab_) word.y = change(id + 1, word.y);
    if (id + 2 < vocab_) word.z = change(id + 2, word.z);
    if (id + 3 < vocab_) word.w = change(id + 3, word.w);
    store(id, word);
  }
  // The steps of this warp, for what needs its lanes together; what lies beyond the vocabulary loads as NaN,
  // which equals nothing.
  __device__ int steps() const { return steps_; }
  __device__ int id(int step) const { return begin_ + step * kStepIds; }
  __device__ float4 load(int id) const {
    if (words_ && id < vocab_) return *reinterpret_cast<const float4*>(values_ + id);
    return {id < vocab_ ? values_[id] : NAN, id + 1 < vocab_ ? values_[id + 1] : NAN,
            id + 2 < vocab_ ? values_[id + 2] : NAN, id + 3 < vocab_ ? values_[id + 3] : NAN};
  }

 private:
  __device__ void store(int id, float4 word) {
    if (words_) {
      *reinterpret_cast<float4*>(values_ + id) = word;
      return;
    }
    values_[id] = word.x;
    if (id + 1 < vocab_) values_[id + 1] = word.y;
    if (id + 2 < vocab_) values_[id + 2] = word.z;
    if (id + 3 < vocab_) values_[id + 3] = word.w;
  }

  float* values_;
  int vocab_;
  bool words_;
  int begin_, steps_;
};

// Ids are distinct: threads do not meet.
__device__ void add_biases(float* logits, const LogitBias* biases, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    const LogitBias b = biases[i];
    logits[b.id] = b.bias == -INFINITY ? -INFINITY : clamp_logit(logits[b.id] + b.bias);
  }
}

__device__ void penalise(Row& row, const SamplingRow& params, const int32_t* counts) {
  row.update([&](int id, float logit) {
    if (logit == -INFINITY) return logit;  // masked
    const int32_t count = counts[id];
    return count == 0 ? logit
                      : penalised(logit, count >> 1, params.repetition_penalty, params.presence_penalty,
                                  params.frequency_penalty);
  });
}

__device__ int first_of(const Row& row, float value, Block& block) {
  uint32_t own = 0;  // a lower id is a larger number
  row.each([&](int id, float v) {
    if (v == value) own = max(own, UINT_MAX - static_cast<uint32_t>(id));
  });
  return static_cast<int>(UINT_MAX - block.max(own));
}

// The sum of the lanes before this one, and of all.
struct Prefix {
  uint64_t before, total;
};
__device__ Prefix warp_prefix(uint64_t own) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  unsigned long long inclusive = own;
#pragma unroll
  for (int offset = 1; offset < kWarpLanes; offset *= 2) {
    const unsigned long long other = __shfl_up_sync(kAllLanes, inclusive, offset);
    if (lane >= offset) inclusive += other;
  }
  return {inclusive - own, __shfl_sync(kAllLanes, inclusive, kWarpLanes - 1)};
}

// Values above `last` stay, and of those equal to it the first n by id; the others become `dropped`. `all`:
// no more than n are equal.
__device__ void cut(Row& row, float last, uint32_t n, bool all, float dropped, Block& block) {
  if (all) return row.update([&](int, float v) { return v >= last ? v : dropped; });
  uint32_t own = 0;
  row.each([&](int, float v) { own += v == last; });
  uint64_t rank = block.before_warp(own);
  uint32_t before = 0;
  // Ranks of a step's four values: those of earlier lanes, then one after the other.
  for (int step = 0; step < row.steps(); ++step) {
    const float4 word = row.load(row.id(step));
    const uint32_t equal = (word.x == last) + (word.y == last) + (word.z == last) + (word.w == last);
    const Prefix prefix = warp_prefix(equal);
    before = static_cast<uint32_t>(rank + prefix.before);
    row.update_word(row.id(step), [&](int, float v) {
      if (v == last) return before++ < n ? v : dropped;
      return v > last ? v : dropped;
    });
    rank += prefix.total;
  }
}

// The k largest stay, the lower id first among equals; the others become -infinity. The search is for the
// largest key that k values reach. Values without weight need not be told apart: (value - max) / temperature
// below -28 has none, since exp(-28) < 2^-40.
__device__ void keep_top_k(Row& row, const SamplingRow& params, float max, Block& block) {
  const auto k = static_cast<uint32_t>(params.top_k);
  const auto count_from = [&](uint32_t key) {
    uint32_t own = 0;
    row.each([&](int, float v) { own += key_of(v) >= key; });
    return block.count(own);
  };
  uint32_t low = key_of(max - 28.0f * params.temperature), high = key_of(max);
  uint32_t from_low = count_from(low), above = 0;  // values >= low; values > high
  if (from_low <= k) return;
  while (low < high && from_low != k) {
    const uint32_t middle = low + (high - low + 1) / 2;
    const uint32_t n = count_from(middle);
    if (n >= k) {
      low = middle, from_low = n;
    } else {
      high = middle - 1, above = n;
    }
  }
  cut(row, value_of(low), k - above, from_low == k, -INFINITY, block);
}

// What is known while the nucleus' smallest weight is searched, weights as bits of the floats that hold them
// (exact: at most 24 bits matter, and positive floats are ordered as their bits).
struct Search {
  uint32_t low, high;   // the answer is in [low, high]
  Sum from_low, above;  // of the weights >= low, > high
  uint64_t target;
};

// Halves the range until it is one weight or holds at most `few` tokens. `pivot`: the first place to look.
template <typename Each>
__device__ void narrow(Search& s, Each each, Sum outside, uint32_t few, uint32_t pivot, Block& block) {
  while (s.low < s.high && s.from_low.count - s.above.count > few) {
    const uint32_t middle = pivot > s.low && pivot <= s.high ? pivot : s.low + (s.high - s.low + 1) / 2;
    pivot = 0;
    Sum own;
    each([&](float w) {
      if (__float_as_uint(w) >= middle) {
        own.weight += static_cast<uint64_t>(w);
        ++own.count;
      }
    });
    Sum sum = block.sum(own);
    sum.weight += outside.weight;
    sum.count += outside.count;
    if (sum.weight >= s.target) {
      s.low = middle, s.from_low = sum;
    } else {
      s.high = middle - 1, s.above = sum;
    }
  }
}

// The fewest likeliest tokens whose weights reach the target stay, the lower id first among equals. Once few
// tokens are in question they move to shared memory, one a thread.
__device__ void keep_top_p(Row& row, float top_p, Sum all, Block& block, Shared& shared) {
  Search s{__float_as_uint(1.0f), __float_as_uint(kWeightOne), all, {}, 0};
  s.target = min(top_p_target(top_p, all.weight), all.weight);
  const uint64_t hopeless = top_p_hopeless(top_p, all.weight, all.count);
  narrow(
      s, [&](auto visit) { row.each([&](int, float w) { visit(w); }); }, {}, kThreads,
      __float_as_uint(__ull2float_rz(hopeless)), block);
  if (s.low < s.high) {
    if (threadIdx.x == 0) shared.n_candidates = 0;
    __syncthreads();
    row.each([&](int, float w) {
      const uint32_t bits = __float_as_uint(w);
      if (bits >= s.low && bits <= s.high) shared.candidates[atomicAdd(&shared.n_candidates, 1)] = w;
    });
    __syncthreads();
    const bool has_one = static_cast<int>(threadIdx.x) < shared.n_candidates;
    const float own = has_one ? shared.candidates[threadIdx.x] : 0.0f;
    narrow(
        s, [&](auto visit) { visit(own); }, s.above, 0, 0, block);
  }
  const float last = __uint_as_float(s.low);
  const auto last_weight = static_cast<uint64_t>(last);
  const auto equals = static_cast<uint32_t>((s.target - s.above.weight + last_weight - 1) / last_weight);
  cut(row, last, equals, equals == s.from_low.count - s.above.count, 0.0f, block);
}

// The weights, as floats: floor(2^40 · exp(…)) is exact in one. Tokens that top_k has dropped have none.
__device__ Sum weigh(Row& row, float temperature, float max, Block& block) {
  Sum own;
  row.update([&](int, float v) {
    const float w = truncf(fast_exp((v - max) / temperature) * kWeightOne);
    own.weight += static_cast<uint64_t>(w);
    own.count += w > 0.0f;
    return w;
  });
  return block.sum(own);
}

// The weight that a float holds; 0 where there is no token.
__device__ uint64_t weight_in(float value) {
  return value > 0.0f ? static_cast<uint64_t>(value) : 0;
}

// The intervals of [0, total) that tokens have lie in the order of ids.
__device__ int draw(const Row& row, const SamplingRow& params, Block& block, Shared& shared) {
  uint64_t own = 0;
  row.each([&](int, float w) { own += static_cast<uint64_t>(w); });
  const uint64_t total = block.sum({own, 0}).weight;
  uint64_t left = scale_bits(random_bits(params.seed, params.position), total) - block.before_warp(own);
  // As unsigned numbers: one warp's tokens hold it, and there one lane's.
  bool found = left >= warp_sum64(own);
  for (int step = 0; !found && step < row.steps(); ++step) {
    const int id = row.id(step);
    const float4 word = row.load(id);
    const uint64_t weights[4] = {weight_in(word.x), weight_in(word.y), weight_in(word.z), weight_in(word.w)};
    const Prefix prefix = warp_prefix(weights[0] + weights[1] + weights[2] + weights[3]);
    found = left < prefix.total;
    uint64_t rest = left - prefix.before;
    for (int i = 0; found && i < 4; ++i) {
      if (rest < weights[i]) shared.id = id + i;
      rest = rest < weights[i] ? UINT64_MAX : rest - weights[i];
    }
    left -= prefix.total;
  }
  __syncthreads();
  return shared.id;
}

__device__ int sample_row(float* logits, int vocab, const SamplingRow& params, const LogitBias* biases,
                          const int32_t* counts, Shared& shared) {
  Block block(shared);
  Row row(logits, vocab);
  bool finite = true;
  row.each([&](int, float v) { finite = finite && isfinite(v); });
  if (!__syncthreads_and(finite)) return -1;
  if (params.n_biases > 0) {
    add_biases(logits, biases + params.first_bias, params.n_biases);
    __syncthreads();
  }
  if (counts != nullptr) penalise(row, params, counts);
  uint32_t own = 0;
  row.each([&](int, float v) { own = ::max(own, key_of(v)); });
  const float max = value_of(block.max(own));
  if (max == -INFINITY) return -1;
  if (params.temperature == 0.0f || params.top_k == 1) return first_of(row, max, block);

  if (params.top_k > 0 && params.top_k < vocab) keep_top_k(row, params, max, block);
  const Sum all = weigh(row, params.temperature, max, block);
  if (params.top_p < 1.0f) keep_top_p(row, params.top_p, all, block, shared);
  if (params.min_p > 0.0f) {
    const uint64_t least = min_p_weight(params.min_p);
    row.update([&](int, float w) { return static_cast<uint64_t>(w) >= least ? w : 0.0f; });
  }
  return draw(row, params, block, shared);
}

__global__ void __launch_bounds__(kThreads)
    sample_kernel(float* logits, int64_t stride, int vocab, const SamplingRow* rows, const LogitBias* biases,
                  int32_t* counts, int32_t* ids) {
  __shared__ Shared shared;
  const SamplingRow params = rows[blockIdx.x];
  int id = -1;
  int32_t* own_counts = params.counts_row < 0 ? nullptr : counts + int64_t{params.counts_row} * vocab;
  if (params.logits_row >= 0)
    id = sample_row(logits + params.logits_row * stride, vocab, params, biases, own_counts, shared);
  if (threadIdx.x != 0) return;
  ids[blockIdx.x] = id;
  if (own_counts != nullptr && id >= 0) own_counts[id] += 2;
}

// One block: the row is cleared before anything is counted, and it happens once for a sequence.
__global__ void __launch_bounds__(kThreads)
    count_tokens_kernel(const int32_t* tokens, int n, int n_prompt, int32_t* counts, int vocab) {
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads) counts[i] = 0;
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    if (i < n_prompt) {
      atomicOr(&counts[tokens[i]], 1);
    } else {
      atomicAdd(&counts[tokens[i]], 2);
    }
  }
}

__global__ void take_tokens_kernel(const int32_t* ids, const int32_t* sources, int32_t* tokens, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n && sources[i] >= 0) tokens[i] = max(ids[sources[i]], 0);
}

void require(bool holds, const std::string& message) {
  if (!holds) throw std::runtime_error(message);
}

}  // namespace

void load_sampling_kernels() {
  load_kernel(sample_kernel, 0, "sample");
  load_kernel(count_tokens_kernel, 0, "count_tokens");
  load_kernel(take_tokens_kernel, 0, "take_tokens");
}

void launch_sample(Stream stream, TensorView logits, const SamplingView& view) {
  require(logits.dtype == DType::f32 && view.counts.dtype == DType::i32 && view.ids.dtype == DType::i32,
          "sample: logits are f32, counts and ids i32");
  require(view.ids.cols >= view.n_rows,
          "sample: " + std::to_string(view.n_rows) + " rows, " + std::to_string(view.ids.cols) + " ids");
  require(view.counts.empty() || (view.counts.cols == logits.cols && view.counts.row_stride == logits.cols),
          "sample: counts have " + std::to_string(view.counts.cols) + " columns, logits " +
              std::to_string(logits.cols));
  if (view.n_rows == 0) return;
  const auto vocab = static_cast<int>(logits.cols);
  sample_kernel<<<static_cast<unsigned>(view.n_rows), kThreads, 0, stream>>>(
      logits.row<float>(0), logits.row_stride, vocab, view.rows, view.biases, view.counts.row<int32_t>(0),
      view.ids.row<int32_t>(0));
  check_launch("sample");
}

void launch_count_tokens(Stream stream, TensorView tokens, int32_t n_prompt, TensorView counts) {
  require(tokens.dtype == DType::i32 && counts.dtype == DType::i32,
          "count_tokens: tokens and counts are i32");
  count_tokens_kernel<<<1, kThreads, 0, stream>>>(tokens.row<int32_t>(0), static_cast<int>(tokens.cols),
                                                  n_prompt, counts.row<int32_t>(0),
                                                  static_cast<int>(counts.cols));
  check_launch("count_tokens");
}

void launch_take_tokens(Stream stream, TensorView ids, TensorView sources, TensorView tokens) {
  require(ids.dtype == DType::i32 && sources.dtype == DType::i32 && tokens.dtype == DType::i32,
          "take_tokens: ids, sources and tokens are i32");
  require(sources.cols <= tokens.cols, "take_tokens: " + std::to_string(sources.cols) + " sources, " +
                                           std::to_string(tokens.cols) + " tokens");
  if (sources.cols == 0) return;
  constexpr unsigned kBlock = 256;  // a step has few rows: one block of them is usual, any size would do
  const auto n = static_cast<int>(sources.cols);
  take_tokens_kernel<<<(static_cast<unsigned>(n) + kBlock - 1) / kBlock, kBlock, 0, stream>>>(
      ids.row<int32_t>(0), sources.row<int32_t>(0), tokens.row<int32_t>(0), n);
  check_launch("take_tokens");
}

}  // namespace tramontane::cuda
