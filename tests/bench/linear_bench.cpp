// Matmul speed over the shapes of real models, weight formats, rows and threads, next to this machine's
// limits. Case names: kernel/format/NxK/rows/threads. README.md has the commands.
#include <benchmark/benchmark.h>

#include <memory>

#include "tests/bench/linear_case.h"

namespace tramontane {
namespace {

const std::vector<Shape> kSmolLm2 = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {49152, 576}};
const std::vector<Shape> kMistral7b = {{6144, 4096}, {28672, 4096}, {4096, 14336}};

// The matrix of the case before is kept: cases of one matrix follow one another.
Copies& copies_of(const std::string& name, const Linear& linear, const Format& format, Shape shape,
                  ThreadPool& pool) {
  static std::string current;
  static std::unique_ptr<Copies> copies;
  if (current != name) {
    copies.reset();
    copies = std::make_unique<Copies>(linear, format, shape, pool);
    current = name;
  }
  return *copies;
}

void run_case(benchmark::State& state, const std::string& matrix_name, const Kernel& kernel,
              const Format& format, Shape shape, int64_t rows, int threads) {
  ThreadPool& pool = pool_of(threads);
  Copies& copies = copies_of(matrix_name, *kernel.linear, format, shape, pool);
  Rows multiplied(rows, shape);
  multiplied.multiply(*kernel.linear, copies.next(), pool);
  for ([[maybe_unused]] auto _ : state) multiplied.multiply(*kernel.linear, copies.next(), pool);

  const double bytes = static_cast<double>(copies.bytes()),
               flop = 2.0 * static_cast<double>(rows * shape.n * shape.k);
  const MachineLimits& limits = limits_of(threads);
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flop / 1e9, Counter::kIsIterationInvariantRate);
  state.counters["of_read"] = Counter(bytes / 1e9 / limits.read_gb_s, Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] =
      Counter(flop / 1e9 / peak_gflop_s(kernel, threads), Counter::kIsIterationInvariantRate);
}

void register_cases(const Kernel& kernel, const Format& format, Shape shape) {
  const std::string matrix =
      kernel.name + "/" + format.name + "/" + std::to_string(shape.n) + "x" + std::to_string(shape.k);
  for (const int64_t rows : {1, 4, 16, 64, 512})
    for (const int threads : {1, 2}) {
      const std::string name =
          matrix + "/rows:" + std::to_string(rows) + "/threads:" + std::to_string(threads);
      benchmark::RegisterBenchmark(
          name.c_str(),
          [=](benchmark::State& state) { run_case(state, matrix, kernel, format, shape, rows, threads); })
          ->UseRealTime()
          ->MinTime(0.1)
          ->Unit(benchmark::kMicrosecond);
    }
}

void register_all() {
  for (const Kernel& kernel : kernels())
    for (const std::vector<Shape>& model : {kSmolLm2, kMistral7b})
      for (const Format& format : formats())
        for (const Shape shape : model) register_cases(kernel, format, shape);
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
