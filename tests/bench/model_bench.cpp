// Whole-model speed without server or scheduler: prefill of N tokens and decode of B sequences, through Mistral::forward, next to this
// machine's limits. Case names: prefill/tokens, decode/sequences. Usage: model_bench MODEL [--threads N] [--kernels NAME] [Google Benchmark flags].
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "engine/batch.h"
#include "engine/model/mistral.h"
#include "tests/bench/machine_limits.h"

namespace tramontane {
namespace {

constexpr int32_t kMaxTokens = 512, kContext = 1024, kMaxSequences = 64;
constexpr int32_t kBlocksOfSequence = kContext / kBlockTokens;
constexpr BatchLimits kLimits{kMaxTokens, kMaxSequences, kMaxSequences, kBlocksOfSequence};
constexpr int32_t kDecodeFrom = 128;   // decode steps run at positions 128 … 255, a chat's usual length

class Bench {
 public:
  Bench(const std::string& path, const CpuOptions& options)
      : checkpoint_(Checkpoint::open(path)),
        backend_(make_cpu_backend(options)),
        model_(*backend_, *checkpoint_, kLimits, kContext),
        cache_(*backend_, model_.attention_shape(), model_.config().n_layers, kMaxSequences * kBlocksOfSequence),
        batch_(*backend_, kLimits),
        tokens_(kMaxTokens, 1) {
    for (int32_t s = 0; s < kMaxSequences; ++s) {
      blocks_.emplace_back(kBlocksOfSequence);
      std::iota(blocks_.back().begin(), blocks_.back().end(), s * kBlocksOfSequence);
    }
  }

  void prefill(int32_t n_tokens) {
    batch_.clear();
    batch_.add(std::span(tokens_).first(static_cast<size_t>(n_tokens)), 0, blocks_[0], 1);
    run();
  }

  // One token for each of `n` sequences.
  void decode(int32_t n, int32_t position) {
    batch_.clear();
    for (int32_t s = 0; s < n; ++s) batch_.add(std::span(tokens_).first(1), position, blocks_[static_cast<size_t>(s)], 1);
    run();
  }

  // Weights that take part in every token's matmuls: all but a separate embedding table, which is only looked up.
  double active_weights() const {
    const ModelConfig& c = model_.config();
    const AttentionShape& a = model_.attention_shape();
    const double layer = static_cast<double>(c.dim) * static_cast<double>(a.qkv_cols() + a.q_cols()) + 3.0 * c.dim * c.hidden_dim;
    return layer * c.n_layers + static_cast<double>(c.vocab_size) * c.dim;
  }
  // Bytes of weights that one step reads.
  double weight_bytes() const {
    const ModelConfig& c = model_.config();
    double bytes = static_cast<double>(checkpoint_->weight_bytes());
    if (checkpoint_->has_output()) {   // the lookup table is read a row at a time
      for (const TensorInfo& t : checkpoint_->tensors())
        if (t.role == role_name(Role::tok_embeddings, 0)) bytes -= static_cast<double>(t.bytes);
    }
    return c.n_layers > 0 ? bytes : 0;
  }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const Backend& backend() const { return *backend_; }

 private:
  void run() {
    const TensorView logits = model_.forward(batch_.upload(), cache_);
    float first;
    backend_->download(logits.data, std::as_writable_bytes(std::span(&first, 1)));
    benchmark::DoNotOptimize(first);
  }

  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Backend> backend_;
  Mistral model_;
  KvCache cache_;
  Batch batch_;
  std::vector<int32_t> tokens_;
  std::vector<std::vector<int32_t>> blocks_;
};

void report(benchmark::State& state, const Bench& bench, const MachineLimits& limits, int32_t tokens) {
  const double steps = static_cast<double>(state.iterations());
  const auto rate = [&](double per_step) { return benchmark::Counter(per_step * steps, benchmark::Counter::kIsRate); };
  // Prefill computes logits of its last row only; the difference is the output matrix, counted in neither.
  state.counters["tok/s"] = rate(tokens);
  state.counters["GFLOP/s"] = rate(2.0 * bench.active_weights() * tokens / 1e9);
  state.counters["GB/s"] = rate(bench.weight_bytes() / 1e9);
  state.counters["limit_GB/s"] = limits.read_gb_s;
  state.counters["limit_GFLOP/s"] = std::max({limits.fma_gflop_s, limits.dpbf16_gflop_s, limits.amx_gflop_s});
}

void register_cases(Bench& bench, const MachineLimits& limits) {
  for (const int32_t n : {128, 512})
    benchmark::RegisterBenchmark(("prefill/" + std::to_string(n)).c_str(), [&bench, &limits, n](benchmark::State& state) {
      bench.prefill(n);   // touches the KV pages
      for (auto _ : state) bench.prefill(n);
      report(state, bench, limits, n);
    })->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int32_t n : {1, 2, 4, 8, 16, 32, 64})
    benchmark::RegisterBenchmark(("decode/" + std::to_string(n)).c_str(), [&bench, &limits, n](benchmark::State& state) {
      for (int32_t s = kDecodeFrom; s < 2 * kDecodeFrom; s += kBlockTokens) bench.decode(n, s);   // touches the KV pages
      int32_t position = kDecodeFrom;
      for (auto _ : state) {
        bench.decode(n, position);
        position = position == 2 * kDecodeFrom - 1 ? kDecodeFrom : position + 1;
      }
      report(state, bench, limits, n);
    })->UseRealTime()->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace tramontane

int main(int argc, char** argv) {
  using namespace tramontane;
  benchmark::Initialize(&argc, argv);
  CpuOptions options;
  std::string model;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) options.threads = std::atoi(argv[++i]);
    else if (argument == "--kernels" && i + 1 < argc) options.kernels = argv[++i];
    else model = argument;
  }
  if (model.empty()) {
    std::fprintf(stderr, "usage: model_bench MODEL [--threads N] [--kernels NAME] [--benchmark_filter=…]\n");
    return 2;
  }
  try {
    Bench bench(model, options);
    ThreadPool pool(options.threads > 0 ? options.threads : static_cast<int>(std::thread::hardware_concurrency()));
    const MachineLimits limits = measure_machine_limits(pool);
    std::printf("%s, %s\n", bench.checkpoint().format().c_str(), bench.backend().description().c_str());
    register_cases(bench, limits);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "model_bench: %s\n", error.what());
    return 1;
  }
}
