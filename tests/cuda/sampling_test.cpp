// Sampling on the device: the ids of the host's sampler, exactly, over thousands of rows.
#include "cuda/sampling.h"

#include <cstring>
#include <limits>

#include "tests/cuda/device_tensor.h"
#include "tests/support/reference_sampling.h"

namespace tramontane::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, std::max<size_t>(values.size() * sizeof(T), 1)), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
    data_ = static_cast<T*>(data);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }
  const T* data() const { return data_; }

 private:
  T* data_;
};

// Exact integers, which DeviceTensor's floats are not.
std::vector<int32_t> download_ids(TensorView view) {
  std::vector<int32_t> ids(static_cast<size_t>(view.rows * view.cols));
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << emulator::report();
  EXPECT_EQ(cudaMemcpy(ids.data(), view.data, ids.size() * sizeof(int32_t), cudaMemcpyDeviceToHost),
            cudaSuccess)
      << emulator::report();
  return ids;
}

// Rows of one launch, on the host.
struct Case {
  explicit Case(int32_t vocab) : vocab(vocab) {}

  // The row's logits are added to those of the others; returns its parameters to be filled.
  SamplingRow& add(const Values& row) {
    logits.insert(logits.end(), row.begin(), row.end());
    SamplingRow params;
    params.logits_row = static_cast<int32_t>(rows.size());
    params.temperature = 1.0f;
    params.seed = 1000 + rows.size();
    params.position = 6 * static_cast<uint64_t>(vocab);  // more than make_counts gives
    return rows.emplace_back(params);
  }
  void bias(SamplingRow& row, std::vector<LogitBias> own) {
    row.first_bias = static_cast<int32_t>(biases.size());
    row.n_biases = static_cast<int32_t>(own.size());
    biases.insert(biases.end(), own.begin(), own.end());
  }

  // `pad`: columns between the rows of logits.
  std::vector<int32_t> on_device(int64_t pad = 0) {
    const auto n = static_cast<int64_t>(rows.size());
    const DeviceTensor d_logits(DType::f32, n, vocab, logits, vocab + pad);
    const DeviceArray d_rows(rows);
    const DeviceArray d_biases(biases);
    const DeviceTensor d_ids(std::vector<int32_t>(rows.size(), -7));
    const DeviceTensor d_counts(counts.empty() ? std::vector<int32_t>(static_cast<size_t>(vocab)) : counts);
    TensorView counts_view = d_counts.view();
    counts_view = {counts_view.data, DType::i32, counts_view.cols / vocab, vocab, vocab};
    launch_sample(nullptr, d_logits.view(),
                  {d_rows.data(), d_biases.data(), counts_view, d_ids.view(), static_cast<int32_t>(n)});
    counts_after = download_ids(counts_view);
    return download_ids(d_ids.view());
  }
  std::vector<int32_t> on_host() const {
    Sampler sampler(vocab);
    std::vector<int32_t> ids;
    const auto width = static_cast<size_t>(vocab);
    for (const SamplingRow& row : rows) {
      std::span<const int32_t> own_counts;
      if (row.counts_row >= 0) own_counts = std::span(counts).subspan(width * row.counts_row, width);
      ids.push_back(
          row.logits_row < 0
              ? -1
              : reference_sample(sampler, row, std::span(logits).subspan(width * row.logits_row, width),
                                 std::span(biases).subspan(row.first_bias, row.n_biases), own_counts));
    }
    return ids;
  }
  void expect_same(const char* what, int64_t pad = 0) {
    const std::vector<int32_t> got = on_device(pad), want = on_host();
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_EQ(got[i], want[i]) << what << ", row " << i << ": temperature " << rows[i].temperature
                                 << ", top_k " << rows[i].top_k << ", top_p " << rows[i].top_p << ", min_p "
                                 << rows[i].min_p;
    }
  }

  int32_t vocab;
  Values logits;
  std::vector<SamplingRow> rows;
  std::vector<LogitBias> biases;
  std::vector<int32_t> counts, counts_after;  // [rows with penalties, vocab]
};

// Logits as models have them, or with few distinct values (ties at every rule's edge), or all equal.
Values make_logits(std::mt19937& random, int32_t vocab) {
  const float spread = std::exp2(static_cast<float>(random() % 9) - 4.0f);
  const uint32_t kind = random() % 8;
  Values logits = random_values(static_cast<size_t>(vocab), static_cast<uint32_t>(random()), -1.0f, 1.0f);
  for (float& logit : logits) {
    logit = spread * logit * logit * logit * 8;
    if (kind == 0) logit = std::round(logit);
    if (kind == 1) logit = std::round(logit / 16) * -0.0f;
    if (kind == 2) logit = std::abs(logit) < spread ? 0.0f : logit;
  }
  return logits;
}

template <typename T>
T pick(std::mt19937& random, std::initializer_list<T> values) {
  return values.begin()[random() % values.size()];
}

void make_params(std::mt19937& random, SamplingRow& row, int32_t vocab) {
  row.temperature = pick(random, {0.0f, 0.3f, 0.7f, 1.0f, 1.0f, 1.5f, 4.0f, 100.0f, 1e-6f});
  row.top_k = pick(random, {0, 0, 0, 1, 2, 5, 40, 50, 1000, vocab - 1, vocab, 1 << 30});
  row.top_p = pick(random, {1.0f, 1.0f, 0.95f, 0.9f, 0.5f, 0.1f, 1e-6f, 0.99999994f});
  row.min_p = pick(random, {0.0f, 0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-12f});
  row.seed = (uint64_t{random()} << 32) | random();
  row.position = 6 * static_cast<uint64_t>(vocab) + random() % 100000;
}

void make_biases(std::mt19937& random, Case& c, SamplingRow& row) {
  std::vector<LogitBias> own;
  for (int32_t id = 0; id < c.vocab; id += 1 + static_cast<int32_t>(random() % 50)) {
    own.push_back({id, random() % 3 == 0 ? -kInfinity : static_cast<float>(random() % 400) / 2 - 100});
  }
  c.bias(row, own);
}

void make_counts(std::mt19937& random, Case& c, SamplingRow& row) {
  row.counts_row = static_cast<int32_t>(c.counts.size() / static_cast<size_t>(c.vocab));
  for (int32_t id = 0; id < c.vocab; ++id)
    c.counts.push_back(random() % 4 == 0 ? static_cast<int32_t>(random() % 6) : 0);
  c.counts[c.counts.size() - static_cast<size_t>(c.vocab)] = 1;  // there is a prompt
  row.repetition_penalty = pick(random, {1.0f, 1.3f, 0.5f, 100.0f});
  row.presence_penalty = pick(random, {0.0f, 2.0f, -0.7f});
  row.frequency_penalty = pick(random, {0.0f, 0.3f, -2.0f});
}

class Sampling : public testing::TestWithParam<std::pair<int32_t, int>> {};

TEST_P(Sampling, GivesTheHostsIds) {
  const auto [vocab, n_rows] = GetParam();
  std::mt19937 random(static_cast<uint32_t>(vocab));
  for (int done = 0; done < n_rows;) {
    Case c(vocab);
    for (int i = 0; i < 64 && done < n_rows; ++i, ++done) {
      SamplingRow& row = c.add(make_logits(random, vocab));
      make_params(random, row, vocab);
      if (random() % 3 == 0) make_biases(random, c, row);
      if (random() % 3 == 0) make_counts(random, c, row);
    }
    c.expect_same("random", done % 128 == 0 ? 3 : 0);
    if (HasFailure()) return;
  }
}

// Vocabularies of Mistral 7B (v0.1 and v0.3), of SmolLM2, of none.
INSTANTIATE_TEST_SUITE_P(Vocabularies, Sampling,
                         testing::Values(std::pair(32768, 60), std::pair(32000, 20), std::pair(49152, 20),
                                         std::pair(131072, 6), std::pair(1000, 1000), std::pair(4097, 300),
                                         std::pair(33, 400), std::pair(1, 64)),
                         [](const auto& test) { return "of_" + std::to_string(test.param.first); });

TEST(SamplingEdges, NothingWithoutFiniteLogitsOrAllowedIds) {
  Case c(70);
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    for (const size_t where : {0, 31, 69}) {
      Values logits(70, 1.0f);
      logits[where] = bad;
      c.bias(c.add(logits), {{static_cast<int32_t>(where), 5.0f}});
    }
  }
  std::vector<LogitBias> all;
  for (int32_t id = 0; id < 70; ++id) all.push_back({id, -kInfinity});
  c.bias(c.add(Values(70, 1.0f)), all);
  c.add(Values(70, 1.0f)).logits_row = -1;  // padding
  EXPECT_EQ(c.on_device(), std::vector<int32_t>(c.rows.size(), -1));
}

TEST(SamplingEdges, ExtremeValues) {
  const float big = std::numeric_limits<float>::max();
  Case c(4);
  for (const Values& logits :
       {Values{big, -big, 0, 1}, Values{big, big, big, big}, Values{-big, -big, -big, -big},
        Values{1e-45f, 0, -1e-45f, -0.0f}, Values{-0.0f, 0.0f, -0.0f, 0.0f}}) {
    for (const float temperature : {0.0f, 1e-45f, 1e-6f, 1.0f, 100.0f}) {
      for (const int32_t top_k : {0, 1, 2, 3}) {
        SamplingRow& row = c.add(logits);
        row.temperature = temperature;
        row.top_k = top_k;
        row.top_p = top_k == 3 ? 0.6f : 1.0f;
      }
    }
  }
  c.expect_same("extreme");
}

// Every token of the kept set is drawn by some of the draws, and none else.
TEST(SamplingEdges, TiesKeepTheLowestIds) {
  Case c(5000);
  for (uint64_t seed = 0; seed < 60; ++seed) {
    SamplingRow& row = c.add(Values(5000, 2.0f));
    row.seed = seed;
    row.top_k = seed % 2 == 0 ? 7 : 0;
    row.top_p = seed % 2 == 0 ? 1.0f : 0.001f;
  }
  c.expect_same("ties");
  std::vector<bool> drawn(8);
  for (const int32_t id : c.on_device()) {
    ASSERT_LT(id, 7);
    drawn[static_cast<size_t>(id)] = true;
  }
  EXPECT_EQ(std::count(drawn.begin(), drawn.end(), true), 7);
}

TEST(SamplingEdges, ARowDoesNotDependOnItsNeighbours) {
  std::mt19937 random(5);
  Case together(3000);
  for (int i = 0; i < 12; ++i) make_params(random, together.add(make_logits(random, 3000)), 3000);
  const std::vector<int32_t> ids = together.on_device();
  for (size_t i = 0; i < ids.size(); ++i) {
    Case alone(3000);
    const auto first = together.logits.begin() + static_cast<std::ptrdiff_t>(i) * 3000;
    SamplingRow& row = alone.add(Values(first, first + 3000));
    row = together.rows[i];
    row.logits_row = 0;
    EXPECT_EQ(alone.on_device(), std::vector<int32_t>{ids[i]});
  }
}

TEST(SamplingCounts, TheDrawnTokenIsCounted) {
  std::mt19937 random(6);
  Case c(300);
  for (int i = 0; i < 4; ++i) {
    SamplingRow& row = c.add(make_logits(random, 300));
    make_counts(random, c, row);
    if (i == 2) row.counts_row = -1;
    if (i == 3) c.logits.back() = kInfinity;  // nothing is drawn
  }
  std::vector<int32_t> expected = c.counts;
  const std::vector<int32_t> ids = c.on_device();
  for (const size_t row : {0, 1}) expected[row * 300 + static_cast<size_t>(ids[row])] += 2;
  EXPECT_EQ(ids[3], -1);
  EXPECT_EQ(c.counts_after, expected);
}

TEST(SamplingCounts, CountsATextFromTheStart) {
  const DeviceTensor counts(std::vector<int32_t>(2000, 99)),
      tokens(std::vector<int32_t>{5, 5, 1999, 7, 5, 7, 0, 7});
  launch_count_tokens(nullptr, tokens.view(), 3, counts.view());
  std::vector<int32_t> expected(2000);
  expected[5] = 1 + 2;
  expected[1999] = 1;
  expected[7] = 3 * 2;
  expected[0] = 2;
  EXPECT_EQ(download_ids(counts.view()), expected);
}

TEST(TakeTokens, FillsWhatTheStepBeforeDrew) {
  std::vector<int32_t> tokens(600, 11), sources(600, -1), ids = {40, -1, 42};
  sources[0] = 2;
  sources[599] = 0;
  sources[300] = 1;  // nothing was drawn: the row is thrown away, but its token must be one
  const DeviceTensor d_tokens(tokens), d_sources(sources), d_ids(ids);
  launch_take_tokens(nullptr, d_ids.view(), d_sources.view(), d_tokens.view());
  tokens[0] = 42;
  tokens[599] = 40;
  tokens[300] = 0;
  EXPECT_EQ(download_ids(d_tokens.view()), tokens);
}

TEST(SamplingArguments, AreNamedWhenTheyAreWrong) {
  const DeviceTensor logits(DType::f32, 1, 8, Values(8)), ids(std::vector<int32_t>(1)),
      counts(std::vector<int32_t>(9));
  EXPECT_THROW(launch_sample(nullptr, logits.view(), {nullptr, nullptr, {}, ids.view(), 2}),
               std::runtime_error);
  EXPECT_THROW(launch_sample(nullptr, logits.view(), {nullptr, nullptr, counts.view(), ids.view(), 1}),
               std::runtime_error);
}

}  // namespace
}  // namespace tramontane::cuda
