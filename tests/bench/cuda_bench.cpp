// The launchers of cuda/ at the shapes of Mistral 7B: time, bytes and operations per second, and the share of
// what the device's memory could give. Times are those of a GPU: on the PTX emulator cases are run once each
// and no speed is printed.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <exception>
#include <regex>

#include "cuda/check.cuh"
#include "tests/bench/cuda_cases.h"

namespace tramontane::cuda {
namespace {

void time_case(benchmark::State& state, const Case& timed, const DeviceLimits& limits) {
  // Google Benchmark runs a case several times, one case after the other: data is kept until the next one.
  static std::string current;
  static Launch launch;
  if (current != timed.name) {
    launch = nullptr;
    launch = timed.make();
    current = timed.name;
  }
  TimedGraph graph(timed, launch);
  for ([[maybe_unused]] auto _ : state) state.SetIterationTime(graph.run());
  using benchmark::Counter;
  const auto rate = [](double per_launch) { return Counter(per_launch, Counter::kIsIterationInvariantRate); };
  state.counters["GB/s"] = rate(timed.bytes / 1e9);
  state.counters["of_memory"] = rate(timed.bytes / 1e9 / limits.memory_gb_s);
  if (timed.flop > 0) state.counters["TFLOP/s"] = rate(timed.flop / 1e12);
}

// One that fails, for want of memory or of libcublas, is told as skipped, and the others go on.
void run_case(benchmark::State& state, const Case& timed, const DeviceLimits& limits) {
  try {
    time_case(state, timed, limits);
  } catch (const std::exception& error) {
    state.SkipWithError(error.what());
  }
}

void measure(const std::vector<Case>& cases, const DeviceLimits& limits) {
  benchmark::AddCustomContext("device", limits.name);
  benchmark::AddCustomContext("memory limit", std::to_string(limits.memory_gb_s) + " GB/s");
  for (const Case& timed : cases) {
    benchmark::RegisterBenchmark(timed.name.c_str(),
                                 [timed, limits](benchmark::State& state) { run_case(state, timed, limits); })
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::RunSpecifiedBenchmarks();
}

// Cases of little work, of every operation but attention.
constexpr const char* kOneOfEachKind =
    "(add_rmsnorm|silu_mul|rope_store_kv|gather_rows|sample.*|(embed|norm_qkv_rope)/fp4|linear(_add)?/fp4/o)"
    "/rows:1$|qkv_rope/fp4/rows:16$";

// Whether the cases run at all; a few, for those of 2048 rows take minutes.
void run_once(const std::vector<Case>& cases, const std::string& filter) {
  for (const Case& timed : cases) {
    if (!std::regex_search(timed.name, std::regex(filter))) continue;
    const Launch launch = timed.make();
    launch(nullptr, 0);
    CUDA_CHECK(cudaDeviceSynchronize(), timed.name);
    if (timed.bytes < 1e6) TimedGraph(timed, launch).run();  // as it would be timed
    std::printf("%s ran on the PTX emulator, which has no speed to measure\n", timed.name.c_str());
  }
}

}  // namespace
}  // namespace tramontane::cuda

int main(int argc, char** argv) {
  using namespace tramontane::cuda;
  try {
    const DeviceLimits limits = device_limits();
    std::vector<Case> cases;
    for (const auto make : {linear_cases, attention_cases, rowwise_cases, sampling_cases})
      for (Case& timed : make(limits)) cases.push_back(std::move(timed));
    if (is_emulator()) {
      run_once(cases, argc > 1 ? argv[1] : kOneOfEachKind);
      return 0;
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
    measure(cases, limits);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda_bench: %s\n", error.what());
    return 1;
  }
}
