// What sampling one token costs on the host: one row of logits at a time, as the engine does after each step.
// Case names: how/shape of the logits/vocabulary. Counter `64 rows, ms`: the same for a full batch, to be
// read beside a step's time. Run by hand on a quiet machine; README.md has the commands.
#include <benchmark/benchmark.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/sampler.h"

namespace tramontane {
namespace {

// Logits as a language model gives them: a bell over the vocabulary, and above it the few tokens that fit
// here. "flat" has none of these: the nucleus is thousands of tokens wide.
std::vector<float> make_logits(int32_t vocab, bool flat) {
  std::mt19937 generator(1);
  std::normal_distribution<float> bell(0.0f, flat ? 1.0f : 2.5f);
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (float& logit : logits) logit = bell(generator);
  for (size_t i = 0; i < 20 && !flat; ++i)
    logits[i * 1511 % logits.size()] = 16.0f - 0.4f * static_cast<float>(i);
  return logits;
}

struct Way {
  const char* name;
  SamplingParams params;
};

std::vector<Way> ways() {
  std::vector<Way> all = {{"greedy", {}},
                          {"plain", {}},
                          {"top_p 0.95", {}},
                          {"min_p 0.05", {}},
                          {"top_k 50 top_p 0.9", {}},
                          {"top_k 50 penalties", {}}};
  all[0].params.temperature = 0.0f;
  all[2].params.top_p = 0.95f;
  all[3].params.min_p = 0.05f;
  all[4].params.top_k = all[5].params.top_k = 50;
  all[4].params.top_p = 0.9f;
  all[5].params.repetition_penalty = 1.1f;
  all[5].params.presence_penalty = 0.5f;
  return all;
}

void count_batch(benchmark::State& state) {
  state.counters["64 rows, ms"] =
      benchmark::Counter(64e-3, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void run_sample(benchmark::State& state, const SamplingParams& params, int32_t vocab, bool flat) {
  const std::vector<float> logits = make_logits(vocab, flat);
  std::vector<int32_t> tokens(1024);  // half prompt, half answer
  std::iota(tokens.begin(), tokens.end(), 0);
  Sampler sampler(vocab);
  uint64_t seed = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(sampler.sample(
        logits, {.params = params, .tokens = tokens, .n_prompt = 512, .masked = {}, .seed = seed++}));
  }
  count_batch(state);
}

void run_logprobs(benchmark::State& state, int32_t vocab) {
  const std::vector<float> logits = make_logits(vocab, false);
  Sampler sampler(vocab);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.logprobs(logits, 7, 5));
  count_batch(state);
}

}  // namespace
}  // namespace tramontane

int main(int argc, char** argv) {
  using namespace tramontane;
  for (const int32_t vocab : {32768, 49152}) {  // Mistral v0.3, SmolLM2
    const std::string tail = "/" + std::to_string(vocab);
    for (const Way& way : ways()) {
      for (const bool flat : {false, true}) {
        const std::string name = std::string(way.name) + (flat ? "/flat" : "/peaked") + tail;
        benchmark::RegisterBenchmark(name.c_str(), run_sample, way.params, vocab, flat)
            ->Unit(benchmark::kMicrosecond);
      }
    }
    benchmark::RegisterBenchmark(("top_logprobs 5" + tail).c_str(), run_logprobs, vocab)
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
