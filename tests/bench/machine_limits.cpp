#include "tests/bench/machine_limits.h"

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "cpu/aligned_buffer.h"
#include "cpu/cpu_features.h"

namespace tramontane {
namespace {

// Best rate of several runs: `work` units a run, spread over the threads of `run`.
double best_rate(double work, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int i = 0; i < 7; ++i) {
    const auto start = Clock::now();
    run();
    best = std::max(best, work / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// Keeps a result alive that nobody reads.
template <typename T>
void use(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

constexpr int64_t kStreams = 4, kStreamBytes = 128 << 10;  // what one thread reads at a time

__attribute__((target("avx2"))) void read_streams(const std::byte* data, int64_t bytes) {
  __m256i sum = _mm256_setzero_si256();
  for (const std::byte* end = data + bytes; data < end; data += kStreams * kStreamBytes)
    for (int64_t at = 0; at < kStreamBytes; at += 64)
      for (int64_t s = 0; s < kStreams; ++s) {
        const auto* from = reinterpret_cast<const __m256i*>(data + s * kStreamBytes + at);
        sum = _mm256_or_si256(sum, _mm256_or_si256(_mm256_load_si256(from), _mm256_load_si256(from + 1)));
      }
  use(sum);
}

constexpr int64_t kSteps = 2'000'000;
constexpr int kChains = 12;  // independent sums: hides the latency of two units with a latency of 6

__attribute__((target("avx2,fma"))) void fma_256() {
  __m256 sums[kChains] = {}, a = _mm256_set1_ps(0.999f);
  for (__m256& sum : sums) asm volatile("" : "+x"(sum));  // unknown: equal sums would be computed once
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(a, a, sum);
    asm volatile("" : "+x"(a));
  }
  use(sums);
}

__attribute__((target("avx512f"))) void fma_512() {
  __m512 sums[kChains] = {}, a = _mm512_set1_ps(0.999f);
  for (__m512& sum : sums) asm volatile("" : "+v"(sum));  // unknown: equal sums would be computed once
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(a, a, sum);
    asm volatile("" : "+v"(a));
  }
  use(sums);
}

__attribute__((target("avx512f,avx512bf16"))) void dpbf16_512() {
  __m512 sums[kChains] = {};
  __m512i a = _mm512_set1_epi16(0x3f7f);
  for (__m512& sum : sums) asm volatile("" : "+v"(sum));  // unknown: equal sums would be computed once
  for (int64_t i = 0; i < kSteps; ++i) {
#pragma GCC unroll 16
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)a);
    asm volatile("" : "+v"(a));
  }
  use(sums);
}

// 16 x 16 x 32 products and sums an instruction, four sums at a time.
void tdpbf16ps() {
  struct alignas(64) TileConfig {
    uint8_t palette = 1, unused[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } const config;
  asm volatile("ldtilecfg %0" : : "m"(config));
  for (int64_t i = 0; i < kSteps / 4; ++i)
    asm volatile(
        "tdpbf16ps %tmm5, %tmm4, %tmm0\n\ttdpbf16ps %tmm5, %tmm4, %tmm1\n\t"
        "tdpbf16ps %tmm5, %tmm4, %tmm2\n\ttdpbf16ps %tmm5, %tmm4, %tmm3");
  asm volatile("tilerelease");
}

double flop_rate(ThreadPool& pool, void (*kernel)(), int flop) {
  const double work = static_cast<double>(kSteps) * flop * pool.size();
  return best_rate(work, [&] { pool.run([&](int) { kernel(); }); }) / 1e9;
}

}  // namespace

MachineLimits measure_machine_limits(ThreadPool& pool) {
  MachineLimits limits;
  if (!cpu_features().avx2) return limits;
  const size_t bytes = size_t{256} << 20;
  const Buffer memory = allocate_aligned(bytes, "bandwidth probe");
  std::memset(memory.data(), 1, bytes);  // unwritten pages are all the one zero page, in cache
  limits.read_gb_s = best_rate(static_cast<double>(bytes),
                               [&] {
                                 pool.run([&](int thread) {
                                   const auto [first, last] =
                                       share_of(static_cast<int64_t>(bytes) / 4096, thread, pool.size());
                                   read_streams(memory.data() + first * 4096, (last - first) * 4096);
                                 });
                               }) /
                     1e9;
  limits.fma_gflop_s =
      cpu_features().avx512 ? flop_rate(pool, fma_512, 32 * kChains) : flop_rate(pool, fma_256, 16 * kChains);
  if (cpu_features().avx512bf16) limits.dpbf16_gflop_s = flop_rate(pool, dpbf16_512, 64 * kChains);
  if (cpu_features().amx) limits.amx_gflop_s = flop_rate(pool, tdpbf16ps, 2 * 16 * 16 * 32);
  return limits;
}

}  // namespace tramontane
