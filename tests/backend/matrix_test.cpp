// The reference dequantisation of engine/backend/matrix.h on matrices small enough to work out by hand.
#include "engine/backend/matrix.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace tramontane {
namespace {

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

HostMatrix dense(int64_t n, int64_t k, DType dtype, std::span<const std::byte> codes) {
  HostMatrix m;
  m.n = n;
  m.k = k;
  m.dense_dtype = dtype;
  m.codes = codes;
  return m;
}

HostMatrix quantized(int64_t n, int64_t k, const QuantLayout& layout, DType scale_dtype,
                     std::span<const std::byte> codes, std::span<const std::byte> scales,
                     std::span<const std::byte> biases = {}) {
  HostMatrix m = dense(n, k, DType::bf16, codes);
  m.quant = layout;
  m.scale_dtype = scale_dtype;
  m.scales = scales;
  m.biases = biases;
  return m;
}

std::vector<float> row(const HostMatrix& m, int64_t n) {
  std::vector<float> out(static_cast<size_t>(m.k));
  dequantize_row(m, n, out);
  return out;
}

TEST(Matrix, DenseRows) {
  const std::vector<float> f32 = {1, 2, 3, 4, 5, 6};
  HostMatrix m = dense(2, 3, DType::f32, bytes_of(f32));
  EXPECT_EQ(row(m, 1), (std::vector<float>{4, 5, 6}));
  const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x0001};
  m = dense(1, 3, DType::f16, bytes_of(halves));
  EXPECT_EQ(row(m, 0), (std::vector<float>{1, -2, 0x1p-24f}));
  const std::vector<uint16_t> bf16 = {0x3f80, 0xc000, 0x4049};
  m = dense(1, 3, DType::bf16, bytes_of(bf16));
  EXPECT_EQ(row(m, 0), (std::vector<float>{1, -2, 3.140625f}));
}

// Two rows of two groups of 16; even k is the low nibble.
TEST(Matrix, FourBitRows) {
  QuantLayout layout{.bits = 4, .group = 16, .has_bias = true, .code_zero = 0};
  for (size_t i = 0; i < 16; ++i) layout.table[i] = static_cast<float>(i * i);
  std::vector<uint8_t> codes(32, 0);
  codes[16] = 0x21;      // row 1: k = 0 has code 1, k = 1 has code 2
  codes[24 + 7] = 0xf3;  // row 1, group 1: k = 30 has code 3, k = 31 has code 15
  const std::vector<float> scales = {1, 1, 2, 0.5f}, biases = {0, 0, 10, -1};
  const HostMatrix m =
      quantized(2, 32, layout, DType::f32, bytes_of(codes), bytes_of(scales), bytes_of(biases));
  check_canonical(m);
  EXPECT_EQ(row(m, 0), std::vector<float>(32, 0.0f));
  const auto second = row(m, 1);
  EXPECT_EQ(second[0], 12.0f);
  EXPECT_EQ(second[1], 18.0f);
  EXPECT_EQ(second[2], 10.0f);
  EXPECT_EQ(second[29], -1.0f);
  EXPECT_EQ(second[30], 3.5f);
  EXPECT_EQ(second[31], 111.5f);
}

TEST(Matrix, EightBitRowsSubtractTheirZero) {
  std::vector<uint8_t> codes(32, 128);
  codes[0] = 0;
  codes[31] = 255;
  const std::vector<uint16_t> scales = {0x3800};  // 0.5 in F16
  const HostMatrix m = quantized(1, 32, QuantLayout{.bits = 8, .group = 32, .code_zero = 128}, DType::f16,
                                 bytes_of(codes), bytes_of(scales));
  check_canonical(m);
  EXPECT_EQ(row(m, 0)[0], -64.0f);
  EXPECT_EQ(row(m, 0)[1], 0.0f);
  EXPECT_EQ(row(m, 0)[31], 63.5f);
}

// 3 * 0x1.555556p-2 rounds to 1 as a product, so the sum with -1 is 0; a fused multiply-add would keep 2^-25.
TEST(Matrix, ProductAndSumAreRoundedSeparately) {
  QuantLayout layout{.bits = 4, .group = 16, .has_bias = true, .code_zero = 0};
  layout.table.fill(3.0f);
  const std::vector<uint8_t> codes(8, 0);
  const std::vector<float> scales = {0x1.555556p-2f}, biases = {-1};
  const HostMatrix m =
      quantized(1, 16, layout, DType::f32, bytes_of(codes), bytes_of(scales), bytes_of(biases));
  EXPECT_EQ(row(m, 0)[0], 0.0f);
}

TEST(Matrix, CanonicalBytes) {
  const auto dense = canonical_bytes(3, 5, DType::f32, std::nullopt, DType::f32);
  EXPECT_EQ(dense.codes, 60u);
  EXPECT_EQ(dense.scales, 0u);
  const auto four = canonical_bytes(3, 128, DType::bf16, QuantLayout{.bits = 4, .group = 64}, DType::f16);
  EXPECT_EQ(four.codes, 192u);
  EXPECT_EQ(four.scales, 12u);
  const auto six = canonical_bytes(3, 128, DType::bf16, QuantLayout{.bits = 6, .group = 16}, DType::f32);
  EXPECT_EQ(six.codes, 384u);
  const auto eight = canonical_bytes(3, 128, DType::bf16, QuantLayout{.bits = 8, .group = 16}, DType::f32);
  EXPECT_EQ(eight.codes, 384u);
  EXPECT_EQ(eight.scales, 96u);
}

TEST(MatrixDeathTest, AMatrixWithTheWrongBytesIsABrokenInvariant) {
  const std::vector<float> values(5);
  const HostMatrix m = dense(2, 3, DType::f32, bytes_of(values));
  EXPECT_DEATH(check_canonical(m), "20 vs 24");
}

}  // namespace
}  // namespace tramontane
