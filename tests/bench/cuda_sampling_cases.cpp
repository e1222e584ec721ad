#include <algorithm>
#include <random>

#include "cuda/check.cuh"
#include "cuda/sampling.h"
#include "tests/bench/cuda_cases.h"

namespace tramontane::cuda {
namespace {

constexpr int32_t kVocab = 32768;  // Mistral v0.3

// As sampler_bench has them for the host: a bell, and 20 tokens that stand out.
std::vector<float> make_logits(int32_t rows) {
  std::mt19937 random(1);
  std::normal_distribution<float> bell(0.0f, 2.5f);
  std::vector<float> logits(static_cast<size_t>(rows) * kVocab);
  for (float& logit : logits) logit = bell(random);
  for (size_t i = 0; i < logits.size(); i += kVocab) {
    for (size_t j = 0; j < 20; ++j) logits[i + j * 1511] = 16.0f - 0.4f * static_cast<float>(j);
  }
  return logits;
}

// Of a text of 512 tokens of prompt and 512 of answer, all different.
std::vector<int32_t> make_counts(int32_t rows) {
  std::vector<int32_t> counts(static_cast<size_t>(rows) * kVocab);
  for (size_t i = 0; i < counts.size(); i += kVocab) {
    std::fill_n(&counts[i], 512, 1);
    std::fill_n(&counts[i + 512], 512, 2);
  }
  return counts;
}

struct Draw {
  const char* name;
  SamplingRow params;
};

std::vector<Draw> draws() {
  std::vector<Draw> all = {
      {"greedy", {}}, {"top_k50_top_p0.9", {}}, {"penalties", {}}, {"min_p0.05", {}}, {"logit_bias1024", {}}};
  all[1].params.temperature = all[2].params.temperature = 1.0f;
  all[1].params.top_k = all[2].params.top_k = 50;
  all[1].params.top_p = 0.9f;
  all[2].params.counts_row = 0;
  all[2].params.repetition_penalty = 1.1f;
  all[2].params.presence_penalty = 0.5f;
  all[3].params.temperature = all[4].params.temperature = 1.0f;
  all[3].params.min_p = 0.05f;
  all[4].params.n_biases = 1024;  // --max-logit-bias
  return all;
}

struct Logits {
  Buffer fresh, used, rows, biases, counts, ids;
  int32_t n_rows = 0;

  Logits(SamplingRow params, int32_t n) : n_rows(n) {
    const std::vector<float> values = make_logits(n);
    const std::vector<int32_t> text = make_counts(n);
    std::vector<SamplingRow> draw(static_cast<size_t>(n), params);
    for (int32_t i = 0; i < n; ++i) {
      draw[i].seed = static_cast<uint64_t>(i);
      draw[i].logits_row = i;
      if (params.counts_row >= 0) draw[i].counts_row = i;
    }
    std::vector<LogitBias> bias;  // the same for all rows
    for (int32_t i = 0; i < std::max(params.n_biases, 1); ++i) bias.push_back({i * 97 % kVocab, -1.0f});
    biases = device_copy(bias.data(), bias.size() * sizeof(LogitBias));
    fresh = device_copy(values.data(), values.size() * sizeof(float));
    used = device_copy(values.data(), values.size() * sizeof(float));
    rows = device_copy(draw.data(), draw.size() * sizeof(SamplingRow));
    counts = device_integers(text);
    ids = zeroed_device_bytes(static_cast<size_t>(n) * sizeof(int32_t));
  }

  void restore(Stream stream) const {
    CUDA_CHECK(cudaMemcpyAsync(used.data(), fresh.data(), used.size(), cudaMemcpyDeviceToDevice, stream),
               "the benchmark's logits");
  }
  void sample(Stream stream) const {
    launch_sample(stream, used.view(DType::f32, n_rows, kVocab),
                  {.rows = reinterpret_cast<const SamplingRow*>(rows.data()),
                   .biases = reinterpret_cast<const LogitBias*>(biases.data()),
                   .counts = counts.view(DType::i32, n_rows, kVocab),
                   .ids = ids.view(DType::i32, 1, n_rows),
                   .n_rows = n_rows});
  }
};

double logit_bytes(int32_t rows) {
  return double(rows) * kVocab * sizeof(float);
}

// A draw that is not greedy leaves no logits behind, so that each launch copies fresh ones first.
Case draw_case(const Draw& draw, int32_t rows) {
  const bool restores = draw.params.temperature > 0.0f;
  const double counts = draw.params.counts_row >= 0 ? logit_bytes(rows) : 0;
  return {std::string("sample/") + draw.name + "/rows:" + std::to_string(rows),
          logit_bytes(rows) * (restores ? 3 : 1) + counts, 0, 1,
          [params = draw.params, rows, restores]() -> Launch {
            return [logits = std::make_shared<Logits>(params, rows), restores](Stream stream, size_t) {
              if (restores) logits->restore(stream);
              logits->sample(stream);
            };
          }};
}

// What is to be subtracted from the others.
Case copy_case(int32_t rows) {
  return {"sample/copy_of_logits/rows:" + std::to_string(rows), 2 * logit_bytes(rows), 0, 1,
          [rows]() -> Launch {
            return [logits = std::make_shared<Logits>(SamplingRow{}, rows)](Stream stream, size_t) {
              logits->restore(stream);
            };
          }};
}

}  // namespace

std::vector<Case> sampling_cases(const DeviceLimits&) {
  std::vector<Case> cases;
  for (const int32_t rows : {1, 64}) {
    for (const Draw& draw : draws()) cases.push_back(draw_case(draw, rows));
    cases.push_back(copy_case(rows));
  }
  return cases;
}

}  // namespace tramontane::cuda
