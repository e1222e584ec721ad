// Operations whose rows are independent: add_rmsnorm, silu_mul, embed, gather_rows.
#include <cmath>

#include "tests/ops/ops_support.h"

namespace tramontane::ops {
namespace {

class RowwiseTest : public OpsTest {};

std::vector<double> squares_and_norm(Values& x, const Values& delta, const Values& w, int64_t cols,
                                     double eps) {
  std::vector<double> want;
  for (size_t first = 0; first < x.size(); first += static_cast<size_t>(cols)) {
    double sum = 0;
    for (size_t i = first; i < first + static_cast<size_t>(cols); ++i) {
      if (!delta.empty()) x[i] += delta[i];
      sum += double{x[i]} * double{x[i]};
    }
    const double scale = 1 / std::sqrt(sum / double(cols) + eps);
    for (size_t i = first; i < first + static_cast<size_t>(cols); ++i)
      want.push_back(x[i] * scale * double{w[i - first]});
  }
  return want;
}

TEST_P(RowwiseTest, AddRmsnormMatchesFp64) {
  const auto backend = make_backend();
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 4096}, {37, 576}, {5, 1}, {3, 7}, {2, 35}, {1, 130}}) {
    for (const bool with_delta : {true, false}) {
      SCOPED_TRACE(testing::Message()
                   << rows << " x " << cols << (with_delta ? " with" : " without") << " delta");
      const auto count = static_cast<size_t>(rows * cols);
      Values x = random_values(count, 1, -3, 3);
      const Values delta = with_delta ? random_values(count, 2) : Values();
      const Values w = random_values(static_cast<size_t>(cols), 3);
      const DeviceTensor d_x(*backend, DType::f32, rows, cols, x, cols + 5);
      const DeviceTensor d_delta(*backend, DType::f32, rows, cols, with_delta ? delta : x, cols + 1);
      const DeviceTensor d_w(*backend, DType::f32, 1, cols, w);
      const DeviceTensor d_y(*backend, backend->act_dtype(), rows, cols, cols + 3);
      backend->add_rmsnorm(d_x.view(), with_delta ? d_delta.view() : TensorView{}, d_w.view(), 1e-5f,
                           d_y.view());
      const std::vector<double> want = squares_and_norm(x, delta, w, cols, double{1e-5f});
      expect_same_bits(d_x.download(), x, "x after adding delta");
      // The sum of cols squares, halved in effect by the root, and five more roundings.
      const double relative = (double(cols) / 2 + 5) * kF32Epsilon + storage_epsilon(backend->act_dtype());
      std::vector<double> bound;
      for (double value : want) bound.push_back(1.01 * relative * std::abs(value));
      expect_within(d_y.download(), want, bound, "y");
    }
  }
}

TEST_P(RowwiseTest, SiluMulMatchesFp64) {
  const auto backend = make_backend();
  for (const auto& [rows, cols] :
       {std::pair<int64_t, int64_t>{1, 14336}, {33, 1536}, {3, 1}, {2, 37}, {1, 1025}}) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols);
    Values gate_up = random_values(static_cast<size_t>(rows * cols * 2), 4, -12, 12);
    gate_up[0] = 0;
    const DeviceTensor in(*backend, DType::f32, rows, 2 * cols, gate_up, 2 * cols + 4);
    const DeviceTensor out(*backend, backend->act_dtype(), rows, cols, cols + 1);
    backend->silu_mul(in.view(), out.view());
    std::vector<double> want, bound;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = gate_up[static_cast<size_t>(r * 2 * cols + c)],
                     up = gate_up[static_cast<size_t>(r * 2 * cols + cols + c)];
        want.push_back(gate / (1 + std::exp(-gate)) * up);
        // exp within 4 ulp, and four more roundings
        bound.push_back((12 * kF32Epsilon + 1.01 * storage_epsilon(backend->act_dtype())) *
                        std::abs(want.back()));
      }
    }
    expect_within(out.download(), want, bound, "y");
  }
}

TEST_P(RowwiseTest, SiluMulAtTheEnds) {
  const auto backend = make_backend(1);
  const Values gates = {-1e30f, -200.0f, -100.0f, -88.5f, 88.5f, 200.0f, 1e30f, -INFINITY, NAN};
  Values gate_up = gates;
  gate_up.resize(2 * gates.size(), 1.0f);
  const auto n = static_cast<int64_t>(gates.size());
  const DeviceTensor in(*backend, DType::f32, 1, 2 * n, gate_up), out(*backend, backend->act_dtype(), 1, n);
  backend->silu_mul(in.view(), out.view());
  const Values y = out.download();
  for (size_t i = 1; i < 4; ++i) EXPECT_NEAR(y[i], 0.0f, 1e-30f) << "silu(" << gates[i] << ")";
  for (size_t i = 4; i < 7; ++i) EXPECT_NEAR(y[i] / gates[i], 1.0f, 0.004f) << "silu(" << gates[i] << ")";
  EXPECT_TRUE(std::isnan(y[8])) << "NaN must not vanish";
}

// What rows share a call, and how many threads there are, changes no bit.
TEST_P(RowwiseTest, SameBitsHoweverGrouped) {
  constexpr int64_t kRows = 23, kNorm = 1003, kSilu = 2055;
  const Values x = random_values(kRows * kNorm, 5), w = random_values(kNorm, 6);
  const Values gate_up = random_values(kRows * 2 * kSilu, 7, -5, 5);
  Values norm_reference, silu_reference;
  for (int threads = 1; threads <= most_threads(); ++threads) {
    const auto backend = make_backend(threads);
    for (int64_t group : {kRows, int64_t{1}, int64_t{4}}) {
      const DeviceTensor d_x(*backend, DType::f32, kRows, kNorm, x), d_w(*backend, DType::f32, 1, kNorm, w);
      const DeviceTensor d_y(*backend, backend->act_dtype(), kRows, kNorm);
      const DeviceTensor d_in(*backend, DType::f32, kRows, 2 * kSilu, gate_up),
          d_out(*backend, backend->act_dtype(), kRows, kSilu);
      for (int64_t first = 0; first < kRows; first += group) {
        const auto rows = [&](const DeviceTensor& tensor) {
          TensorView view = tensor.view();
          view.data += first * view.row_stride * static_cast<int64_t>(size_of(view.dtype));
          return view.head(std::min(group, kRows - first));
        };
        backend->add_rmsnorm(rows(d_x), {}, d_w.view(), 1e-6f, rows(d_y));
        backend->silu_mul(rows(d_in), rows(d_out));
      }
      if (norm_reference.empty()) {
        norm_reference = d_y.download();
        silu_reference = d_out.download();
      }
      const std::string what =
          "groups of " + std::to_string(group) + " on " + std::to_string(threads) + " threads";
      expect_same_bits(d_y.download(), norm_reference, "add_rmsnorm, " + what);
      expect_same_bits(d_out.download(), silu_reference, "silu_mul, " + what);
    }
  }
}

TEST_P(RowwiseTest, GatherRows) {
  const auto backend = make_backend();
  const Values x = random_values(7 * 33, 8);
  const DeviceTensor from(*backend, DType::f32, 7, 33, x, 40), to(*backend, DType::f32, 3, 33, 34);
  const DeviceTensor rows(*backend, {0, 2, 6});
  backend->gather_rows(from.view(), rows.view(), to.view());
  Values want;
  for (int64_t row : {0, 2, 6}) want.insert(want.end(), x.begin() + row * 33, x.begin() + (row + 1) * 33);
  expect_same_bits(to.download(), want, "gathered rows");
}

TRAMONTANE_OPS_SUITE(RowwiseTest);

}  // namespace
}  // namespace tramontane::ops
