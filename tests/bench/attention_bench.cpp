// Attention speed: prompts in GFLOP/s of the causal half, generation in GB/s of keys and values read.
// Case names: kernels/heads/what/threads. Run by hand on a quiet machine; README.md has the commands.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"

namespace tramontane {
namespace {

struct Model {
  const char* name;
  AttentionShape shape;
};
constexpr Model kModels[] = {{"smollm2", {9, 3, 64, 0}}, {"mistral7b", {32, 8, 128, 0}}};

// `n_seqs` sequences that have `context` keys each after a step of `n_rows` rows; pages shuffled, as after
// hours of service.
class Step {
 public:
  Step(Backend& backend, const AttentionShape& shape, int32_t n_seqs, int32_t n_rows, int32_t context)
      : backend_(backend), shape_(shape) {
    const int32_t pages = (context + kBlockTokens - 1) / kBlockTokens;
    const int32_t rows = n_seqs * n_rows;
    std::vector<int32_t> table(static_cast<size_t>(n_seqs) * pages), positions, q_starts = {0},
                                                                                kv_lens(n_seqs, context);
    std::iota(table.begin(), table.end(), 0);
    std::shuffle(table.begin(), table.end(), std::mt19937(1));
    for (int32_t s = 0; s < n_seqs; ++s) {
      for (int32_t r = 0; r < n_rows; ++r) positions.push_back(context - n_rows + r);
      q_starts.push_back((s + 1) * n_rows);
    }
    batch_.positions = upload(positions, 1);
    batch_.q_starts = upload(q_starts, 1);
    batch_.kv_lens = upload(kv_lens, 1);
    batch_.block_table = upload(table, n_seqs);
    batch_.n_tokens = rows;
    batch_.n_seqs = n_seqs;
    batch_.max_q = n_rows;
    batch_.max_kv = context;
    qkv_ = upload(random_words(static_cast<size_t>(rows * shape.qkv_cols())), rows);
    qkv_.dtype = DType::f32;
    // BF16 pairs: as words their bits are numbers of about 1 too
    const auto cache = random_words(static_cast<size_t>(n_seqs) * pages * kBlockTokens * shape.kv_cols());
    kv_ = {upload(cache, 1).data, n_seqs * pages};
    out_ = upload(std::vector<int32_t>(static_cast<size_t>(rows * shape.q_cols() / 2)), rows);
    out_.dtype = DType::bf16;
    out_.cols = out_.row_stride = shape.q_cols();
  }

  void run() { backend_.attention(qkv_, batch_, shape_, kv_, out_); }

 private:
  // Words whose upper and lower halves are both BF16 numbers of +-0.5 .. 1; as an FP32 number likewise.
  static std::vector<int32_t> random_words(size_t count) {
    std::mt19937 generator(2);
    std::vector<int32_t> words(count);
    for (int32_t& word : words) word = static_cast<int32_t>((generator() & 0x807f807fu) | 0x3f003f00u);
    return words;
  }

  TensorView upload(const std::vector<int32_t>& words, int64_t rows) {
    buffers_.push_back(backend_.allocate(words.size() * 4, "benchmark"));
    backend_.upload(buffers_.back().data(), std::as_bytes(std::span(words)));
    return buffers_.back().view(DType::i32, rows, static_cast<int64_t>(words.size()) / rows);
  }

  Backend& backend_;
  AttentionShape shape_;
  BatchView batch_;
  std::vector<Buffer> buffers_;
  TensorView qkv_, out_;
  KvLayer kv_;
};

void run_prompt(benchmark::State& state, const std::string& kernels, Model model, int threads, int32_t rows,
                int32_t context) {
  const auto backend = make_cpu_backend({.threads = threads, .kernels = kernels, .f32 = false});
  Step step(*backend, model.shape, 1, rows, context);
  for (auto _ : state) step.run();
  const double keys = double(rows) * (context - rows) + double(rows) * (rows + 1) / 2;  // over all rows
  state.counters["GFLOP/s"] = benchmark::Counter(4e-9 * keys * double(model.shape.q_cols()),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void run_generation(benchmark::State& state, const std::string& kernels, Model model, int threads,
                    int32_t n_seqs, int32_t context) {
  const auto backend = make_cpu_backend({.threads = threads, .kernels = kernels, .f32 = false});
  Step step(*backend, model.shape, n_seqs, 1, context);
  for (auto _ : state) step.run();
  const double bytes = 2.0 * 2 * n_seqs * context * double(model.shape.kv_cols());
  state.counters["GB/s"] = benchmark::Counter(1e-9 * bytes, benchmark::Counter::kIsIterationInvariantRate);
}

void register_model(const std::string& kernels, const Model& model, int threads) {
  const std::string head = kernels + "/" + model.name + "/", tail = "/threads:" + std::to_string(threads);
  for (int32_t context : {512, 2048}) {
    benchmark::RegisterBenchmark((head + "prompt 512 of " + std::to_string(context) + tail).c_str(),
                                 run_prompt, kernels, model, threads, 512, context)
        ->UseRealTime();
  }
  for (int32_t n_seqs : {1, 16}) {
    for (int32_t context : {256, 2048, 8192}) {
      benchmark::RegisterBenchmark(
          (head + "generate " + std::to_string(n_seqs) + " at " + std::to_string(context) + tail).c_str(),
          run_generation, kernels, model, threads, n_seqs, context)
          ->UseRealTime();
    }
  }
}

}  // namespace
}  // namespace tramontane

int main(int argc, char** argv) {
  for (const std::string& kernels : tramontane::available_cpu_kernels()) {
    if (kernels == "avx512vnni" || kernels == "avx512bf16") continue;  // their attention is that of avx512
    for (const tramontane::Model& model : tramontane::kModels) {
      for (int threads : {1, 2}) tramontane::register_model(kernels, model, threads);
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
