// add_rmsnorm, silu_mul and gather_rows against FP64, at real widths and odd ones.
#include "cuda/rowwise.h"

#include <cmath>

#include "tests/cuda/device_tensor.h"
#include "tests/cuda/rowwise_test.h"

namespace tramontane::cuda {
namespace {

struct NormCase {
  int64_t rows, cols;
  int pad;  // elements between rows: not a multiple of 4 takes the kernel for any alignment
  bool with_delta;
};
void PrintTo(const NormCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.cols << " + " << c.pad << (c.with_delta ? " with delta" : "");
}

class AddRmsnorm : public testing::TestWithParam<NormCase> {};

TEST_P(AddRmsnorm, MatchesFp64) {
  const auto [rows, cols, pad, with_delta] = GetParam();
  const auto count = static_cast<size_t>(rows * cols);
  const float eps = 1e-5f;
  Values x = random_values(count, 1, -3, 3);
  const Values delta = random_values(count, 2), w = random_values(static_cast<size_t>(cols), 3);
  const DeviceTensor d_x(DType::f32, rows, cols, x, cols + pad);
  const DeviceTensor d_delta(DType::f32, rows, cols, delta, cols + pad);
  const DeviceTensor d_w(DType::f32, 1, cols, w);
  const DeviceTensor d_y(DType::bf16, rows, cols, {}, cols + pad);
  launch_add_rmsnorm(nullptr, d_x.view(), with_delta ? d_delta.view() : TensorView{}, d_w.view(), eps,
                     d_y.view());
  std::vector<double> want, bound;
  for (int64_t r = 0; r < rows; ++r) {
    float* row = x.data() + r * cols;
    double sum = 0;
    for (int64_t c = 0; c < cols; ++c) {
      if (with_delta) row[c] += delta[static_cast<size_t>(r * cols + c)];
      sum += double{row[c]} * double{row[c]};
    }
    for (int64_t c = 0; c < cols; ++c) {
      want.push_back(row[c] / std::sqrt(sum / double(cols) + double{eps}) * w[static_cast<size_t>(c)]);
      // The sum of cols squares, halved in effect by the root, and five more roundings.
      const double relative = (double(cols) / 2 + 5) * kF32Epsilon + kBf16Epsilon;
      bound.push_back(1.01 * relative * std::abs(want.back()));
    }
  }
  expect_same_bits(d_x.download(), x, "x after adding delta");
  expect_within(d_y.download(), want, bound, "y");
}

INSTANTIATE_TEST_SUITE_P(All, AddRmsnorm,
                         testing::Values(NormCase{3, 4096, 0, true}, NormCase{1, 4096, 4, false},
                                         NormCase{37, 576, 0, true}, NormCase{2, 64, 0, true},
                                         NormCase{2, 1028, 0, false}, NormCase{2, 8192, 0, true},
                                         NormCase{2, 14336, 0, true}, NormCase{3, 1, 0, true},
                                         NormCase{3, 7, 0, false}, NormCase{2, 35, 1, true},
                                         NormCase{1, 130, 3, true}, NormCase{2, 4095, 2, true}));

// Rows whose squares are far below eps, and a row of zeros: without eps they would be large, or NaN.
TEST(AddRmsnorm, EpsHoldsSmallRows) {
  constexpr int64_t kCols = 1028;
  constexpr float kEps = 1e-5f;
  Values x = random_values(2 * kCols, 5, -1e-4f, 1e-4f);
  std::fill(x.begin() + kCols, x.end(), 0.0f);
  for (const int64_t pad : {0, 1}) {
    const DeviceTensor d_x(DType::f32, 2, kCols, x, kCols + pad), d_y(DType::bf16, 2, kCols, {}, kCols + pad);
    const DeviceTensor w(DType::f32, 1, kCols, Values(kCols, 1.0f));
    launch_add_rmsnorm(nullptr, d_x.view(), {}, w.view(), kEps, d_y.view());
    std::vector<double> want, bound;
    for (const float value : x) {
      want.push_back(value / std::sqrt(double{kEps}));  // the mean of squares is 3e-9
      bound.push_back(std::abs(want.back()) * (kBf16Epsilon + 1e-3));
    }
    expect_within(d_y.download(), want, bound, "y of small rows");
  }
}

// A row's bits depend on the row alone: not on its neighbours, its alignment, or where its scale is computed.
TEST(AddRmsnorm, SameBitsHoweverGrouped) {
  for (const int64_t cols : {576, 1003, 4096}) {
    SCOPED_TRACE(cols);
    constexpr int64_t kRows = 64;  // so many that a last bit of a scale shows in some element's BF16
    const Values x = random_values(static_cast<size_t>(kRows * cols), 4);
    const DeviceTensor w(DType::f32, 1, cols, Values(static_cast<size_t>(cols), 1.0f));
    Values reference;
    for (const auto& [group, pad] : {std::pair<int64_t, int64_t>{kRows, 0}, {1, 0}, {2, 3}}) {
      const DeviceTensor d_x(DType::f32, kRows, cols, x, cols + pad), d_y(DType::bf16, kRows, cols);
      for (int64_t first = 0; first < kRows; first += group) {
        const int64_t count = std::min(group, kRows - first);
        launch_add_rmsnorm(nullptr, d_x.rows(first, count), {}, w.view(), 1e-6f, d_y.rows(first, count));
      }
      const Values y = d_y.download();
      if (reference.empty()) reference = y;
      expect_same_bits(y, reference,
                       std::to_string(group) + " rows a call, " + std::to_string(pad) + " apart");
    }
  }
}

TEST(RowRmsScale, SameBitsInBlocksOfAnySize) {
  for (const int n : {1, 5, 576, 1003, 4096}) {
    const Values x = random_values(static_cast<size_t>(n), 5, -2, 2);
    const DeviceTensor row(DType::f32, 1, n, x), w(DType::f32, 1, n, Values(static_cast<size_t>(n), 1.0f));
    const DeviceTensor y(DType::bf16, 1, n);
    double sum = 0;
    for (float value : x) sum += double{value} * double{value};
    const double want = 1 / std::sqrt(sum / n + 1e-5);
    Values scale;
    for (const int threads : {32, 64, 96, 128, 256, 1024}) {
      SCOPED_TRACE(std::to_string(n) + " elements, " + std::to_string(threads) + " threads");
      const DeviceTensor scales(DType::f32, 1, threads);
      launch_row_scale(row.view().row<float>(0), n, 1e-5f, threads, scales.view().row<float>(0));
      const Values got = scales.download();
      EXPECT_NEAR(got[0], want, (n / 2.0 + 5) * kF32Epsilon * want);
      if (scale.empty()) scale = got;
      expect_same_bits(got, Values(got.size(), scale[0]), "scale");
    }
    launch_add_rmsnorm(nullptr, row.view(), {}, w.view(), 1e-5f, y.view());
    Values scaled;
    for (float value : x) scaled.push_back(stored_as_bf16(value * scale[0]));
    expect_same_bits(y.download(), scaled, "add_rmsnorm with weights of 1");
  }
}

struct SiluCase {
  int64_t rows, cols, pad_in, pad_out;
};
void PrintTo(const SiluCase& c, std::ostream* out) {
  *out << c.rows << " x " << c.cols;
}

class SiluMul : public testing::TestWithParam<SiluCase> {};

TEST_P(SiluMul, MatchesFp64) {
  const auto [rows, cols, pad_in, pad_out] = GetParam();
  Values gate_up = random_values(static_cast<size_t>(rows * cols * 2), 6, -12, 12);
  gate_up[0] = 0;
  const DeviceTensor in(DType::f32, rows, 2 * cols, gate_up, 2 * cols + pad_in);
  const DeviceTensor out(DType::bf16, rows, cols, {}, cols + pad_out);
  launch_silu_mul(nullptr, in.view(), out.view());
  std::vector<double> want, bound;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const double gate = gate_up[static_cast<size_t>(r * 2 * cols + c)];
      const double up = gate_up[static_cast<size_t>(r * 2 * cols + cols + c)];
      want.push_back(gate / (1 + std::exp(-gate)) * up);
      // exp within 4 ulp, and four more roundings
      bound.push_back((12 * kF32Epsilon + 1.01 * kBf16Epsilon) * std::abs(want.back()));
    }
  }
  expect_within(out.download(), want, bound, "y");
}

INSTANTIATE_TEST_SUITE_P(All, SiluMul,
                         testing::Values(SiluCase{2, 14336, 0, 0}, SiluCase{33, 1536, 4, 4},
                                         SiluCase{3, 1, 0, 0}, SiluCase{2, 37, 0, 0}, SiluCase{1, 1025, 0, 1},
                                         SiluCase{3, 64, 1, 0}));

TEST(SiluMul, AtTheEnds) {
  const Values gates = {-1e30f, -200.0f, -100.0f, -88.5f, 88.5f, 200.0f, 1e30f, NAN};
  Values gate_up = gates;
  gate_up.resize(2 * gates.size(), 1.0f);
  const auto n = static_cast<int64_t>(gates.size());
  const DeviceTensor in(DType::f32, 1, 2 * n, gate_up), out(DType::bf16, 1, n);
  launch_silu_mul(nullptr, in.view(), out.view());
  const Values y = out.download();
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(y[i], 0.0f, 1e-30f) << "silu(" << gates[i] << ")";
  for (size_t i = 4; i < 7; ++i) EXPECT_NEAR(y[i] / gates[i], 1.0f, 0.004f) << "silu(" << gates[i] << ")";
  EXPECT_TRUE(std::isnan(y[7])) << "NaN must not vanish";
}

TEST(GatherRows, TakesTheRowsNamed) {
  for (const auto& [cols, stride] : {std::pair<int64_t, int64_t>{4096, 4096}, {33, 40}, {36, 40}, {1, 1}}) {
    SCOPED_TRACE(cols);
    const Values x = random_values(static_cast<size_t>(7 * cols), 7);
    const DeviceTensor from(DType::f32, 7, cols, x, stride), to(DType::f32, 4, cols);
    const DeviceTensor rows({0, 2, 6, 6});
    launch_gather_rows(nullptr, from.view(), rows.view(), to.view());
    Values want;
    for (const int64_t row : {0, 2, 6, 6})
      want.insert(want.end(), x.begin() + row * cols, x.begin() + (row + 1) * cols);
    expect_same_bits(to.download(), want, "gathered rows");
  }
}

}  // namespace
}  // namespace tramontane::cuda
