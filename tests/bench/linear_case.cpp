#include "tests/bench/linear_case.h"

#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <random>

#include "cpu/cpu_features.h"

namespace tramontane {
namespace {

std::array<float, 16> affine_table(int zero = 0) {
  std::array<float, 16> table{};
  for (int i = 0; i < 16; ++i) table[static_cast<size_t>(i)] = static_cast<float>(i - zero);
  return table;
}

std::array<float, 16> fp4_table() {
  std::array<float, 16> table{};
  const int numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i)
    table[i] = static_cast<float>(i < 8 ? numerators[i] : -numerators[i - 8]) / 192.0f;
  return table;
}

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

}  // namespace

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {{"bf16", {}, DType::f32},
                                          {"q4_1", QuantLayout{4, 32, true, 0, affine_table()}, DType::f16},
                                          {"fp4", QuantLayout{4, 64, false, 0, fp4_table()}, DType::f32},
                                          {"mlx4", QuantLayout{4, 64, true, 0, affine_table()}, DType::bf16},
                                          {"q4_0", QuantLayout{4, 32, false, 8, affine_table(8)}, DType::f16},
                                          {"mlx6", QuantLayout{6, 64, true, 0, {}}, DType::bf16},
                                          {"mlx8", QuantLayout{8, 64, true, 0, {}}, DType::bf16},
                                          {"q8_0", QuantLayout{8, 32, false, 128, {}}, DType::f16}};
  return all;
}

std::vector<Kernel> kernels() {
  std::vector<Kernel> all;
  if (cpu_features().amx) {
    all.push_back({"amx", &amx_linear()});
    all.push_back({"amxbf16", &plain_amx_linear()});
  }
  if (cpu_features().avx512bf16) all.push_back({"avx512bf16", &avx512bf16_linear()});
  if (cpu_features().avx512vnni) all.push_back({"avx512vnni", &avx512vnni_linear()});
  if (cpu_features().avx512) all.push_back({"avx512", &avx512_linear()});
  if (cpu_features().avx2) all.push_back({"avx2", &avx2_linear()});
  return all;
}

ThreadPool& pool_of(int threads) {
  static std::unique_ptr<ThreadPool> pool;
  if (!pool || pool->size() != threads) pool = std::make_unique<ThreadPool>(threads);
  return *pool;
}

const MachineLimits& limits_of(int threads) {
  static std::vector<MachineLimits> all(256);
  MachineLimits& limits = all.at(static_cast<size_t>(threads));
  if (limits.read_gb_s == 0) limits = measure_machine_limits(pool_of(threads));
  return limits;
}

double peak_gflop_s(const Kernel& kernel, int threads) {
  const MachineLimits& limits = limits_of(threads);
  if (kernel.name.starts_with("amx")) return limits.amx_gflop_s;
  return kernel.name == "avx512bf16" ? limits.dpbf16_gflop_s : limits.fma_gflop_s;
}

void add_limits_to_context() {
  for (const int threads : {1, 2}) {
    const MachineLimits& limits = limits_of(threads);
    const std::string text = "read " + std::to_string(limits.read_gb_s) + " GB/s, FP32 FMA " +
                             std::to_string(limits.fma_gflop_s) + " GFLOP/s, vdpbf16ps " +
                             std::to_string(limits.dpbf16_gflop_s) + " GFLOP/s, tdpbf16ps " +
                             std::to_string(limits.amx_gflop_s) + " GFLOP/s";
    benchmark::AddCustomContext("limits, " + std::to_string(threads) + " threads", text);
  }
}

Copies::Copies(const Linear& linear, const Format& format, Shape shape, ThreadPool& pool) {
  HostMatrix matrix;
  matrix.n = shape.n;
  matrix.k = shape.k;
  matrix.quant = format.quant;
  matrix.scale_dtype = format.scale_dtype;
  const MatrixBytes sizes = canonical_bytes(shape.n, shape.k, DType::bf16, format.quant, format.scale_dtype);
  const std::vector<std::byte> codes = code_bytes(sizes.codes, !format.quant),
                               scales = scale_bytes(sizes.scales, format.scale_dtype);
  matrix.codes = codes;
  matrix.scales = scales;
  if (format.quant && format.quant->has_bias) matrix.biases = scales;
  constexpr size_t kBeyondCache = size_t{128} << 20;
  do packed_.push_back(linear.pack(matrix, pool));
  while (packed_.size() * packed_[0].bytes() < kBeyondCache);
}

Rows::Rows(int64_t rows, Shape shape)
    : x_(static_cast<size_t>(rows * shape.k)),
      y_(static_cast<size_t>(rows * shape.n)),
      in_{reinterpret_cast<std::byte*>(x_.data()), DType::bf16, rows, shape.k, shape.k},
      out_{reinterpret_cast<std::byte*>(y_.data()), DType::f32, rows, shape.n, shape.n} {
  for (size_t i = 0; i < x_.size(); ++i) x_[i] = float_to_bf16(static_cast<float>(i % 17) * 0.1f - 0.8f);
}

}  // namespace tramontane
