// mma.sync, ldmatrix, cp.async and a 4-bit product, against sums in double precision.
#include <cmath>
#include <cstring>

#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;

std::vector<__nv_bfloat16> random_bf16(std::size_t count, unsigned seed) {
  std::vector<__nv_bfloat16> result;
  for (const float x : random_floats(count, seed)) result.push_back(__float2bfloat16(x));
  return result;
}

TEST(Matrix, GemmByTensorCores) {
  constexpr int kM = 64, kN = 128, kK = 160;
  const auto a = random_bf16(kM * kK, 1), b = random_bf16(kN * kK, 2);
  DeviceArray<__nv_bfloat16> da(a), db(b);
  DeviceArray<float> dc(kM * kN);
  gemm_bf16(da.get(), db.get(), dc.get(), kM, kN, kK);
  const auto c = dc.values();
  for (int i = 0; i < kM; ++i)
    for (int j = 0; j < kN; ++j) {
      double sum = 0;
      for (int k = 0; k < kK; ++k)
        sum += static_cast<double>(__bfloat162float(a[i * kK + k])) * __bfloat162float(b[j * kK + k]);
      ASSERT_NEAR(c[i * kN + j], sum, 1e-4) << i << " " << j;
    }
}

TEST(Matrix, Fp4Gemv) {
  constexpr int kRows = 64, kK = 1024;
  const double values[8] = {0, 1 / 192.0, 2 / 3.0, 1, 1 / 3.0, 1 / 2.0, 1 / 6.0, 1 / 4.0};
  std::mt19937 random(3);
  std::vector<uint8_t> w(kRows * kK / 2);
  for (auto& v : w) v = static_cast<uint8_t>(random());
  auto scales = random_floats(kRows * kK / 64, 4);
  for (auto& s : scales) s = std::fabs(s) + 0.01f;
  const auto x = random_bf16(kK, 5);
  DeviceArray<uint8_t> dw(w);
  DeviceArray<float> ds(scales);
  DeviceArray<__nv_bfloat16> dx(x), dy(kRows);
  gemv_fp4(dw.get(), ds.get(), dx.get(), dy.get(), kRows, kK);
  const auto y = dy.values();
  for (int r = 0; r < kRows; ++r) {
    double sum = 0;
    for (int k = 0; k < kK; ++k) {
      const unsigned byte = w[(r * kK + k) / 2], code = k % 2 ? byte & 15 : byte >> 4;
      sum += (code & 8 ? -1 : 1) * values[code & 7] * scales[(r * kK + k) / 64] * __bfloat162float(x[k]);
    }
    ASSERT_NEAR(__bfloat162float(y[r]), sum, 0.004 * (std::fabs(sum) + 1)) << r;
  }
}

// Small whole numbers: every format holds them, and every sum of them, exactly.
void check_mma(int form, int depth, uint16_t (*encode)(int)) {
  std::vector<uint16_t> a(16 * depth), b(8 * depth);
  std::vector<float> c(128);
  const auto value_a = [](int r, int k) { return (r * 5 + k * 3) % 17 - 8; };
  const auto value_b = [](int k, int n) { return (n * 7 + k * 2) % 13 - 6; };
  for (int k = 0; k < depth; ++k) {
    for (int r = 0; r < 16; ++r) a[r * depth + k] = encode(value_a(r, k));
    for (int n = 0; n < 8; ++n) b[n * depth + k] = encode(value_b(k, n));
  }
  for (int i = 0; i < 128; ++i) c[i] = static_cast<float>(i) / 4;
  DeviceArray<uint16_t> da(a), db(b);
  DeviceArray<float> dc(c), dd(128);
  mma_once(form, da.get(), db.get(), dc.get(), dd.get());
  const auto d = dd.values();
  for (int r = 0; r < 16; ++r)
    for (int n = 0; n < 8; ++n) {
      float sum = c[r * 8 + n];
      for (int k = 0; k < depth; ++k) sum += static_cast<float>(value_a(r, k) * value_b(k, n));
      ASSERT_EQ(d[r * 8 + n], sum) << r << " " << n;
    }
}

uint16_t to_bf16(int x) {
  const float f = static_cast<float>(x);
  uint32_t bits = 0;
  std::memcpy(&bits, &f, 4);
  return static_cast<uint16_t>(bits >> 16);
}
uint16_t to_half(int x) {
  if (x == 0) return 0;
  int exponent = 0;
  const double m = std::frexp(std::abs(x), &exponent);  // 0.5 ... 1
  return static_cast<uint16_t>((x < 0 ? 0x8000 : 0) | (exponent - 1 + 15) << 10 |
                               static_cast<int>((m * 2 - 1) * 1024));
}

TEST(Matrix, MmaBf16K16) {
  check_mma(kBf16K16, 16, to_bf16);
}
TEST(Matrix, MmaHalfK16) {
  check_mma(kHalfK16, 16, to_half);
}
TEST(Matrix, MmaBf16K8) {
  check_mma(kBf16K8, 8, to_bf16);
}
TEST(Matrix, MmaHalfK8) {
  check_mma(kHalfK8, 8, to_half);
}

TEST(Matrix, TransposedLoad) {
  std::vector<uint16_t> x(64);
  for (int i = 0; i < 64; ++i) x[i] = static_cast<uint16_t>(i * 1001);
  DeviceArray<uint16_t> dx(x);
  DeviceArray<uint32_t> out(32);
  ldmatrix_transposed(dx.get(), out.get());
  const auto y = out.values();
  for (int lane = 0; lane < 32; ++lane) {
    const int column = lane / 4, row = lane % 4 * 2;
    ASSERT_EQ(y[lane], x[row * 8 + column] | static_cast<uint32_t>(x[(row + 1) * 8 + column]) << 16);
  }
}

TEST(Matrix, AsynchronousCopyFillsWithZeros) {
  std::vector<uint8_t> x(16 * 32);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<uint8_t>(i % 255 + 1);
  for (const int bytes : {0, 5, 16}) {
    DeviceArray<uint8_t> dx(x), dy(x.size());
    copy_with_zero_fill(dx.get(), dy.get(), bytes);
    const auto y = dy.values();
    for (std::size_t i = 0; i < x.size(); ++i)
      ASSERT_EQ(y[i], static_cast<int>(i % 16) < bytes ? x[i] : 0) << bytes << " " << i;
  }
}

}  // namespace
}  // namespace tramontane::emulator
