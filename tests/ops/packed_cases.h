// What the tests of the packed Linears go through: every weight format, every instruction set that this
// processor has, random matrices and rows.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "cpu/linear.h"

namespace tramontane::packed {

std::array<float, 16> fp4_table();
// Affine codes.
QuantLayout nibbles(int group, bool bias, int zero);
QuantLayout sixes(int group, bool bias, int zero);
QuantLayout bytes(int group, bool bias, int zero);

struct Format {
  std::string name;
  std::optional<QuantLayout> quant;
  DType dtype;                // of dense weights, or of scales
  double table_rounding = 0;  // relative, where the table is not exact in BF16
};

std::vector<Format> formats();

struct Kernel {
  std::string name;
  const Linear* linear;
  bool bf16_weights = false;  // multiplies by quantised weights rounded to BF16
  bool planes = false;        // multiplies affine 4-bit weights by x in integers (linear_planes_tile.h)
  bool words = false;         // multiplies other quantised weights by x in integers (linear_tile.h)
  bool leaves_rest = false;   // takes nothing else: another kernel of the list does
};

std::vector<Kernel> kernels();

// Whether the kernel takes such weights in integers, and which way.
bool in_planes(const Kernel& kernel, const std::optional<QuantLayout>& quant);
bool in_words(const Kernel& kernel, const std::optional<QuantLayout>& quant);
bool in_integers(const Kernel& kernel, const std::optional<QuantLayout>& quant);

// A canonical matrix and the memory that it views.
struct Weights {
  std::vector<std::byte> codes, scales, biases;
  HostMatrix matrix;

  Weights(const Format& format, int64_t n, int64_t k, unsigned seed = 1);
};

// BF16 [rows, stride], normally distributed.
std::vector<uint16_t> random_rows(int64_t rows, int64_t stride);

inline constexpr float kCanary = -12345.5f;

// y [rows, y_stride] of x [rows, x_stride]; columns past n keep the canary.
std::vector<float> multiply(const Linear& linear, const Matrix& w, const uint16_t* x, int64_t rows,
                            int64_t x_stride, int64_t y_stride, ThreadPool& pool);

void expect_same_bits(const std::vector<float>& a, const std::vector<float>& b, const std::string& what);

// A row of x in integers: blocks of multiples of 2^exponents[block], the largest with `bits` bits behind its
// first.
struct RowInIntegers {
  std::vector<int> q, exponents;

  RowInIntegers(const uint16_t* x, int64_t k, int64_t block, int bits);
  // As words take it: 12 bits a group; and as planes do.
  static RowInIntegers words(const uint16_t* x, const HostMatrix& matrix);
  static RowInIntegers planes(const uint16_t* x, const HostMatrix& matrix);
};

// What linear_planes_tile.h says of a channel's weights: multiples of 2^exponents[block].
struct ChannelInIntegers {
  std::vector<int> weights, exponents;

  ChannelInIntegers(const HostMatrix& matrix, int64_t n);
};

}  // namespace tramontane::packed
