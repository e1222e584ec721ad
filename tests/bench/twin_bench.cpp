// Quantised matmuls beside their BF16 twins, in turns: A B A B. Case names: kernel/format/NxK/rows/threads.
// Counters: us and bf16_us, medians; ratio, the median of bf16 time / format time of neighbouring turns,
// above 1 where the quantised matrix is the faster one. On one thread the time is the processor's, not the
// clock's: what else runs on the machine then counts less. README.md has the commands.
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <memory>

#include "tests/bench/linear_case.h"

namespace tramontane {
namespace {

// Mistral 7B's wqkv and w2 (a quarter of its channels), SmolLM2's w1 and w3.
const std::vector<Shape> kShapes = {{6144, 4096}, {1024, 14336}, {3072, 576}};

struct Twins {
  Twins(const Kernel& kernel, const Format& format, Shape shape, ThreadPool& pool)
      : dense(*kernel.linear, formats()[0], shape, pool), quantised(*kernel.linear, format, shape, pool) {}
  Copies dense, quantised;
};

// Those of the case before are kept: cases of one matrix follow one another.
Twins& twins_of(const std::string& name, const Kernel& kernel, const Format& format, Shape shape,
                ThreadPool& pool) {
  static std::string current;
  static std::unique_ptr<Twins> twins;
  if (current != name) {
    twins.reset();
    twins = std::make_unique<Twins>(kernel, format, shape, pool);
    current = name;
  }
  return *twins;
}

double seconds_now(int threads) {
  timespec time;
  ::clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

void run_case(benchmark::State& state, const std::string& matrix, const Kernel& kernel, const Format& format,
              Shape shape, int64_t rows, int threads) {
  ThreadPool& pool = pool_of(threads);
  Twins& twins = twins_of(matrix, kernel, format, shape, pool);
  Rows multiplied(rows, shape);
  const auto seconds_of = [&](const Matrix& w) {
    const double start = seconds_now(threads);
    multiplied.multiply(*kernel.linear, w, pool);
    return seconds_now(threads) - start;
  };
  seconds_of(twins.dense.next());
  seconds_of(twins.quantised.next());
  std::vector<double> dense, quantised, ratios;
  for ([[maybe_unused]] auto _ : state) {
    dense.push_back(seconds_of(twins.dense.next()));
    quantised.push_back(seconds_of(twins.quantised.next()));
    ratios.push_back(dense.back() / quantised.back());
    state.SetIterationTime(quantised.back());
  }
  const double seconds = median(quantised);
  state.counters["us"] = seconds * 1e6;
  state.counters["bf16_us"] = median(dense) * 1e6;
  state.counters["ratio"] = median(ratios);
  state.counters["GB/s"] = static_cast<double>(twins.quantised.bytes()) / seconds / 1e9;
  state.counters["of_peak"] =
      2.0 * static_cast<double>(rows * shape.n * shape.k) / seconds / 1e9 / peak_gflop_s(kernel, threads);
}

void register_cases(const Kernel& kernel, const Format& format, Shape shape) {
  const std::string matrix =
      kernel.name + "/" + format.name + "/" + std::to_string(shape.n) + "x" + std::to_string(shape.k);
  for (const int threads : {1, 2})
    for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 512}) {
      const std::string name =
          matrix + "/rows:" + std::to_string(rows) + "/threads:" + std::to_string(threads);
      benchmark::RegisterBenchmark(
          name.c_str(),
          [=](benchmark::State& state) { run_case(state, matrix, kernel, format, shape, rows, threads); })
          ->UseManualTime()
          ->MinTime(0.2)
          ->Unit(benchmark::kMicrosecond);
    }
}

void register_all() {
  for (const Kernel& kernel : kernels())
    for (size_t i = 1; i < formats().size(); ++i)
      for (const Shape shape : kShapes) register_cases(kernel, formats()[i], shape);
}

}  // namespace
}  // namespace tramontane

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  tramontane::register_all();
  tramontane::add_limits_to_context();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
