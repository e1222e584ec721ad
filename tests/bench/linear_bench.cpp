// Matmul speed over the shapes of real models, weight formats, rows and threads, next to this machine's
// limits. Case names: kernel/format/NxK/rows/threads. README.md has the commands.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cpu/cpu_features.h"
#include "cpu/linear.h"
#include "tests/bench/machine_limits.h"

namespace tramontane {
namespace {

struct Shape {
  int64_t n, k;
};

struct Format {
  std::string name;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
};

struct Kernel {
  std::string name;
  const Linear* linear;
};

std::array<float, 16> affine_table() {
  std::array<float, 16> table{};
  for (size_t i = 0; i < 16; ++i) table[i] = static_cast<float>(i);
  return table;
}

std::array<float, 16> fp4_table() {
  std::array<float, 16> table{};
  const int numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i)
    table[i] = static_cast<float>(i < 8 ? numerators[i] : -numerators[i - 8]) / 192.0f;
  return table;
}

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {{"bf16", {}, DType::f32},
                                          {"q4_1", QuantLayout{4, 32, true, 0, affine_table()}, DType::f16},
                                          {"fp4", QuantLayout{4, 64, false, 0, fp4_table()}, DType::f32},
                                          {"mlx4", QuantLayout{4, 64, true, 0, affine_table()}, DType::bf16},
                                          {"q8_0", QuantLayout{8, 32, false, 128, {}}, DType::f16}};
  return all;
}

const std::vector<Shape> kSmolLm2 = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}, {49152, 576}};
const std::vector<Shape> kMistral7b = {{6144, 4096}, {28672, 4096}, {4096, 14336}};

// Any bits are a matrix, as long as scales are finite numbers of modest size.
std::vector<std::byte> scale_bytes(size_t bytes, DType dtype) {
  std::vector<std::byte> out(bytes);
  const float one = 0.01f;
  const auto bits = dtype == DType::f16 ? uint16_t{0x2100} : float_to_bf16(one);
  for (size_t i = 0; i < bytes; i += size_of(dtype))
    std::memcpy(out.data() + i, dtype == DType::f32 ? static_cast<const void*>(&one) : &bits, size_of(dtype));
  return out;
}

std::vector<std::byte> code_bytes(size_t bytes, bool dense) {
  std::mt19937 random(3);
  std::vector<std::byte> out(bytes);
  for (size_t i = 0; i + 4 <= bytes; i += 4) {
    const uint32_t word = static_cast<uint32_t>(random()) & (dense ? 0x807f807fu : ~0u);
    const uint32_t value = dense ? word | 0x3f803f80u : word;
    std::memcpy(out.data() + i, &value, 4);
  }
  return out;
}

// As many copies of a packed matrix as overflow the caches: every multiplication reads its weights from
// memory, as a model does.
class Copies {
 public:
  Copies(const Linear& linear, const Format& format, Shape shape, ThreadPool& pool) {
    HostMatrix matrix;
    matrix.n = shape.n;
    matrix.k = shape.k;
    matrix.quant = format.quant;
    matrix.scale_dtype = format.scale_dtype;
    const MatrixBytes sizes =
        canonical_bytes(shape.n, shape.k, DType::bf16, format.quant, format.scale_dtype);
    const std::vector<std::byte> codes = code_bytes(sizes.codes, !format.quant),
                                 scales = scale_bytes(sizes.scales, format.scale_dtype);
    matrix.codes = codes;
    matrix.scales = scales;
    if (format.quant && format.quant->has_bias) matrix.biases = scales;
    constexpr size_t kBeyondCache = size_t{128} << 20;
    do packed_.push_back(linear.pack(matrix, pool));
    while (packed_.size() * packed_[0].bytes() < kBeyondCache);
  }
  const Matrix& next() { return packed_[at_ = (at_ + 1) % packed_.size()]; }
  size_t bytes() const { return packed_[0].bytes(); }

 private:
  std::vector<Matrix> packed_;
  size_t at_ = 0;
};

ThreadPool& pool_of(int threads) {
  static std::unique_ptr<ThreadPool> pool;
  if (!pool || pool->size() != threads) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

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

const MachineLimits& limits_of(int threads) {
  static std::vector<MachineLimits> all(256);
  MachineLimits& limits = all.at(static_cast<size_t>(threads));
  if (limits.read_gb_s == 0) limits = measure_machine_limits(pool_of(threads));
  return limits;
}

void run_case(benchmark::State& state, const std::string& matrix_name, const Kernel& kernel,
              const Format& format, Shape shape, int64_t rows, int threads) {
  ThreadPool& pool = pool_of(threads);
  Copies& copies = copies_of(matrix_name, *kernel.linear, format, shape, pool);
  std::vector<uint16_t> x(static_cast<size_t>(rows * shape.k));
  for (size_t i = 0; i < x.size(); ++i) x[i] = float_to_bf16(static_cast<float>(i % 17) * 0.1f - 0.8f);
  std::vector<float> y(static_cast<size_t>(rows * shape.n));
  const TensorView in{reinterpret_cast<std::byte*>(x.data()), DType::bf16, rows, shape.k, shape.k};
  const TensorView out{reinterpret_cast<std::byte*>(y.data()), DType::f32, rows, shape.n, shape.n};
  kernel.linear->multiply(in, copies.next(), out, pool);
  for ([[maybe_unused]] auto _ : state) kernel.linear->multiply(in, copies.next(), out, pool);

  const double bytes = static_cast<double>(copies.bytes()),
               flop = 2.0 * static_cast<double>(rows * shape.n * shape.k);
  const MachineLimits& limits = limits_of(threads);
  const bool bf16 = kernel.name == "avx512bf16";
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes / 1e9, Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(flop / 1e9, Counter::kIsIterationInvariantRate);
  state.counters["of_read"] = Counter(bytes / 1e9 / limits.read_gb_s, Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] = Counter(flop / 1e9 / (bf16 ? limits.dpbf16_gflop_s : limits.fma_gflop_s),
                                      Counter::kIsIterationInvariantRate);
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
  std::vector<Kernel> kernels;
  if (cpu_features().avx512bf16) kernels.push_back({"avx512bf16", &avx512bf16_linear()});
  if (cpu_features().avx512) kernels.push_back({"avx512", &avx512_linear()});
  if (cpu_features().avx2) kernels.push_back({"avx2", &avx2_linear()});
  for (const Kernel& kernel : kernels)
    for (const std::vector<Shape>& model : {kSmolLm2, kMistral7b})
      for (const Format& format : formats())
        for (const Shape shape : model) register_cases(kernel, format, shape);
}

void print_limits() {
  for (const int threads : {1, 2}) {
    const MachineLimits& limits = limits_of(threads);
    const std::string text = "read " + std::to_string(limits.read_gb_s) + " GB/s, FP32 FMA " +
                             std::to_string(limits.fma_gflop_s) + " GFLOP/s, vdpbf16ps " +
                             std::to_string(limits.dpbf16_gflop_s) + " GFLOP/s";
    benchmark::AddCustomContext("limits, " + std::to_string(threads) + " threads", text);
  }
}

}  // namespace
}  // namespace tramontane

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  tramontane::register_all();
  tramontane::print_limits();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
