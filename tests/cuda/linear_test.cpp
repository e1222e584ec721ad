// linear, linear_add and embed in every weight format: against FP64 within a derived bound, and bit for bit
// the same for any number of rows in the call.
#include "cuda/linear.h"

#include <array>
#include <cmath>
#include <numeric>

#include "tests/cuda/device_tensor.h"
#include "tests/cuda/weights.h"

namespace tramontane::cuda {
namespace {

constexpr int kPad = 8;  // elements between rows of x: a whole 16-byte word

// y[rows, n] of x[rows, k], `at_once` rows a call; or y += where `y` has values.
Values multiply(const HostMatrix& host, const Matrix& w, const Values& x, int64_t rows, int64_t at_once,
                const Values& y = {}, int64_t pad = kPad) {
  const DeviceTensor d_x(DType::bf16, rows, host.k, x, host.k + pad);
  const DeviceTensor d_y(DType::f32, rows, host.n, y, host.n + 3);
  for (int64_t first = 0; first < rows; first += at_once) {
    const int64_t count = std::min(at_once, rows - first);
    (y.empty() ? launch_linear : launch_linear_add)(nullptr, d_x.rows(first, count), w,
                                                    d_y.rows(first, count));
  }
  return d_y.download();
}

// A weight is code · scale + bias, and the kernels sum code · x over a group first, scale the sum, and add
// bias · sum(x). So errors are relative to |code · scale · x| + |bias · x|: each of the k products is exact,
// at most k + 2 sums and products follow it, each of FP32 (tensor cores may truncate: twice the rounding
// error), and tables may be rounded.
struct Expected {
  std::vector<double> values, bounds;
};
// Of the outputs named, [rows, outputs].
Expected expected(const HostMatrix& m, const WeightFormat& format, const Values& x, int64_t rows,
                  const std::vector<int64_t>& outputs) {
  Expected e;
  HostMatrix without_bias = m;
  if (m.quant) without_bias.quant->has_bias = false;
  const double relative = static_cast<double>(m.k + 2) * 2 * kF32Epsilon + format.table_rounding;
  const size_t width = outputs.size();
  e.values.resize(static_cast<size_t>(rows) * width), e.bounds.resize(e.values.size());
  for (size_t i = 0; i < width; ++i) {
    const std::vector<float> row = exact_row(m, outputs[i]), products = exact_row(without_bias, outputs[i]);
    for (int64_t t = 0; t < rows; ++t) {
      double sum = 0, size = 0;
      for (size_t k = 0; k < row.size(); ++k) {
        const double input = stored_as_bf16(x[static_cast<size_t>(t * m.k) + k]);
        sum += row[k] * input;
        size += std::abs(products[k] * input) + std::abs((row[k] - products[k]) * input);
      }
      e.values[static_cast<size_t>(t) * width + i] = sum;
      e.bounds[static_cast<size_t>(t) * width + i] = relative * size;
    }
  }
  return e;
}

void check_product(const WeightFormat& format, int64_t n, int64_t k, int64_t rows, int64_t pad = kPad) {
  const HostMatrix host = random_matrix(format, n, k, 11);
  const Matrix w = upload(host);
  const Values x = random_values(static_cast<size_t>(rows * k), 12);
  std::vector<int64_t> outputs(static_cast<size_t>(n));
  std::iota(outputs.begin(), outputs.end(), 0);
  const Expected e = expected(host, format, x, rows, outputs);
  expect_within(multiply(host, w, x, rows, rows, {}, pad), e.values, e.bounds,
                format.name + " " + std::to_string(n) + " x " + std::to_string(k) + ", " +
                    std::to_string(rows) + " rows");
}

class LinearFormats : public ::testing::TestWithParam<std::string> {
 protected:
  const WeightFormat& format() const { return weight_format(GetParam()); }
  int64_t group() const { return format().quant ? format().quant->group : 32; }
};

// One kernel for up to 8, 16, 32, 64 rows and one for more; n and k that fill tiles and that do not.
TEST_P(LinearFormats, MatchesFp64) {
  check_product(format(), 40, 3 * group(), 1);
  check_product(format(), 33, 640, 5);
  check_product(format(), 48, 5 * group(), 13);
  check_product(format(), 16, 256, 32);
  check_product(format(), 37, 384, 50);
  check_product(format(), 150, 384, 66);
}

// An output has the same bits however many rows are computed with it (engine/DESIGN.md, decision 5).
TEST_P(LinearFormats, SameBitsForAnyNumberOfRows) {
  constexpr int64_t kRows = 130;
  const int64_t n = 40, k = 1280;  // 20 tiles of K: segments of 3, the last of 2
  const HostMatrix host = random_matrix(format(), n, k, 13);
  const Matrix w = upload(host);
  const Values x = random_values(kRows * 1280, 14);
  const Values all = multiply(host, w, x, kRows, kRows);
  for (const int64_t rows : {1, 2, 7, 8, 9, 24, 33, 64, 65}) {
    const int64_t calls = rows < 9 ? 2 : 1;
    const Values some =
        multiply(host, w, Values(x.begin(), x.begin() + calls * rows * k), calls * rows, rows);
    expect_same_bits(some, Values(all.begin(), all.begin() + calls * rows * n),
                     format().name + ", " + std::to_string(rows) + " rows");
  }
}

TEST_P(LinearFormats, EmbedReadsExactRows) {
  for (const int64_t k : {3 * group(), int64_t{640}}) {
    const HostMatrix host = random_matrix(format(), 70, k, 15);
    const Matrix table = upload(host);
    const std::vector<int32_t> tokens = {69, 0, 13, 13, 64};
    const DeviceTensor ids(tokens), x(DType::f32, 5, k, {}, k + 1);
    launch_embed(nullptr, ids.view(), table, x.view());
    Values want;
    for (const int32_t token : tokens) {
      const std::vector<float> row = exact_row(host, token);
      want.insert(want.end(), row.begin(), row.end());
    }
    expect_same_bits(x.download(), want, format().name);
  }
}

// A grid has 65535 blocks in y and z.
TEST(Linear, EmbedTakesMoreRowsThanAGridIsHigh) {
  constexpr int64_t kRows = 65536 + 3;
  const HostMatrix host = random_matrix(weight_format("bf16"), 70, 8, 15);
  const Matrix table = upload(host);
  std::vector<int32_t> tokens(kRows);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 70);
  const DeviceTensor ids(tokens), x(DType::f32, kRows, 8);
  launch_embed(nullptr, ids.view(), table, x.view());
  Values want;
  for (const int32_t token : tokens) {
    const std::vector<float> row = exact_row(host, token);
    want.insert(want.end(), row.begin(), row.end());
  }
  expect_same_bits(x.download(), want, "65539 rows");
}

std::vector<std::string> format_names() {
  std::vector<std::string> names;
  for (const WeightFormat& format : weight_formats()) names.push_back(format.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Linear, LinearFormats, ::testing::ValuesIn(format_names()),
                         [](const auto& test) { return test.param; });

// The widths of Mistral 7B, few outputs.
TEST(Linear, WidthsOfMistral) {
  for (const char* name : {"bf16", "fp4", "nf4", "mlx4_g64", "q4_0", "q8_0", "q6_k"}) {
    check_product(weight_format(name), 48, 4096, 1);
    check_product(weight_format(name), 32, 14336, 3);
  }
  check_product(weight_format("fp4"), 128, 4096, 72);
  check_product(weight_format("bf16"), 128, 4096, 72);
}

// A whole matrix of the real model: y has all outputs, of which the first and last tile's and some of every
// part in between are compared with FP64. Of one as tall as the vocabulary embed
// reads some rows.
void check_real_shape(const char* name, int64_t n, int64_t k, int64_t rows) {
  const WeightFormat& format = weight_format(name);
  const HostMatrix host = random_matrix(format, n, k, 22);
  const Matrix w = upload(host, 64);
  const Values x = random_values(static_cast<size_t>(rows * k), 23);
  std::vector<int64_t> outputs;
  for (int64_t at = 0; at < n; at += at < 16 || at >= n - 17 ? 1 : std::min<int64_t>(331, n - 17 - at))
    outputs.push_back(at);
  const Values all = multiply(host, w, x, rows, rows);
  Values some;
  for (int64_t t = 0; t < rows; ++t)
    for (const int64_t output : outputs) some.push_back(all[static_cast<size_t>(t * n + output)]);
  const Expected e = expected(host, format, x, rows, outputs);
  expect_within(some, e.values, e.bounds,
                format.name + " " + std::to_string(n) + " x " + std::to_string(k) + ", " +
                    std::to_string(rows) + " rows");
  if (n < 32000) return;  // no table of embeddings
  const std::vector<int32_t> tokens = {static_cast<int32_t>(n) - 1, 0, 1, 12345, 31999};
  const DeviceTensor ids(tokens), read(DType::f32, 5, k);
  launch_embed(nullptr, ids.view(), w, read.view());
  Values want;
  for (const int32_t token : tokens) {
    const std::vector<float> row = exact_row(host, token);
    want.insert(want.end(), row.begin(), row.end());
  }
  expect_same_bits(read.download(), want, format.name + ", embed");
}

// Every kernel that stores, at the shapes of Mistral 7B.
TEST(LinearShapesOfMistral, OneRow) {
  check_real_shape("fp4", 6144, 4096, 1);
  check_real_shape("nf4", 4096, 4096, 1);
  check_real_shape("mlx4_g64", 28672, 4096, 1);
  check_real_shape("fp4", 4096, 14336, 1);
  check_real_shape("bf16", 4096, 14336, 8);
}
TEST(LinearShapesOfMistral, HeadsAndEmbeddings) {
  check_real_shape("bf16", 32768, 4096, 1);
  check_real_shape("mlx4_g64", 32000, 4096, 2);
}
TEST(LinearShapesOfMistral, SomeRows) {
  check_real_shape("fp4", 4096, 14336, 16);
  check_real_shape("fp4", 4096, 4096, 32);
  check_real_shape("mlx4_g64", 4096, 4096, 64);
  check_real_shape("bf16", 4096, 4096, 64);
}
TEST(LinearShapesOfMistral, ManyRows) {
  check_real_shape("fp4", 4096, 14336, 65);
  check_real_shape("bf16", 6144, 4096, 65);
  check_real_shape("mlx8_g64", 4096, 4096, 65);
}

// Every combination of a code and its neighbours, exactly: inputs and scales are powers of two.
TEST(Linear, EveryCodeHasItsValue) {
  for (const WeightFormat& format : weight_formats()) {
    if (!format.quant) continue;
    WeightFormat exact = format;
    exact.dtype = DType::f32;
    HostMatrix host = random_matrix(exact, 16, 512, 16);
    std::vector<float> ones(host.scales.size() / 4, 1.0f), zeros(ones.size(), 0.0f);
    std::vector<uint8_t> codes(host.codes.size());
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i + i / 256);
    host.scales = std::as_bytes(std::span(ones)), host.codes = std::as_bytes(std::span(codes));
    if (host.quant->has_bias) host.biases = std::as_bytes(std::span(zeros));
    const Matrix w = upload(host);
    Values x(512 * 512, 0.0f);
    for (size_t i = 0; i < 512; ++i) x[i * 512 + i] = 1.0f;
    const Values y = multiply(host, w, x, 512, 64);
    for (int64_t n = 0; n < 16; ++n) {
      const std::vector<float> row = exact_row(host, n);
      for (size_t k = 0; k < 512; ++k) {
        // FP4's 1/192 is a product of two rounded numbers here; other tables are rounded to BF16.
        const double error = format.table_rounding > 0                  ? format.table_rounding
                             : format.quant == fp4(format.quant->group) ? 0x1p-22
                                                                        : 0;
        ASSERT_NEAR(y[k * 16 + static_cast<size_t>(n)], row[k], error * std::abs(row[k]))
            << format.name << " " << n << " " << k;
      }
    }
  }
}

// Dense rows that no 16-byte word divides.
TEST(Linear, DenseRowsOfAnyWidthAndPitch) {
  for (const auto& [n, k, rows] :
       {std::array<int64_t, 3>{3, 2, 1}, {17, 34, 4}, {31, 1538, 3}, {1, 6, 1}, {20, 70, 70}})
    check_product(weight_format("bf16"), n, k, rows);
  check_product(weight_format("bf16"), 20, 64, 9, 3);
}

TEST(Linear, AddsToWhatIsThere) {
  for (const int64_t rows : {1, 12, 70}) {
    const HostMatrix host = random_matrix(weight_format("q4_0"), 40, 576, 17);
    const Matrix w = upload(host);
    const Values x = random_values(static_cast<size_t>(rows * 576), 18),
                 y = random_values(static_cast<size_t>(rows * 40), 19, -50, 50);
    Values want = multiply(host, w, x, rows, rows);
    for (size_t i = 0; i < want.size(); ++i) want[i] = y[i] + want[i];
    expect_same_bits(multiply(host, w, x, rows, rows, y), want, std::to_string(rows) + " rows");
  }
}

TEST(Linear, RefusesUnalignedRowsOfQuantisedWeights) {
  const HostMatrix host = random_matrix(weight_format("fp4"), 16, 64, 20);
  const Matrix w = upload(host);
  const DeviceTensor x(DType::bf16, 2, 64, random_values(128, 21), 67), y(DType::f32, 2, 16);
  EXPECT_THROW(launch_linear(nullptr, x.view(), w, y.view()), std::runtime_error);
}

}  // namespace
}  // namespace tramontane::cuda
