// linear and embed, in every weight format.
#include <array>
#include <cmath>

#include "tests/ops/weights_case.h"

namespace tramontane::ops {
namespace {

class LinearTest : public OpsTest {
 protected:
  // The rows of x that are computed together are `group`; y has `stride` elements a row.
  static Values multiply(Backend& backend, const Matrix& w, const Values& x, int64_t rows, int64_t group) {
    const DeviceTensor d_x(backend, backend.act_dtype(), rows, w.k, x, w.k + 8);
    const DeviceTensor d_y(backend, DType::f32, rows, w.n, w.n + 3);
    for (int64_t first = 0; first < rows; first += group) {
      const auto part = [&](TensorView view) {
        view.data += first * view.row_stride * static_cast<int64_t>(size_of(view.dtype));
        return view.head(std::min(group, rows - first));
      };
      backend.linear(part(d_x.view()), w, part(d_y.view()));
    }
    return d_y.download();
  }

  // Each product is of a weight within one BF16 rounding (quantised, BF16 arithmetic) and an exact input;
  // sums of k terms in FP32, of which each has at most k + 1 roundings.
  static void expect_product(const Values& y, const HostMatrix& m, const Values& x, int64_t rows,
                             DType act_dtype, const std::string& what) {
    const bool rounds_weights = m.quant.has_value() && act_dtype == DType::bf16;
    const double relative =
        (rounds_weights ? 1.01 * storage_epsilon(DType::bf16) : 0.0) + double(m.k + 1) * kF32Epsilon;
    std::vector<double> want(static_cast<size_t>(rows * m.n)), bound(want.size());
    for (int64_t n = 0; n < m.n; ++n) {
      const Values row = exact_row(m, n, act_dtype);
      for (int64_t t = 0; t < rows; ++t) {
        double sum = 0, absolute = 0;
        for (int64_t k = 0; k < m.k; ++k) {
          const double value = stored_as(x[static_cast<size_t>(t * m.k + k)], act_dtype);
          const double product = value * double{row[static_cast<size_t>(k)]};
          sum += product;
          absolute += std::abs(product);
        }
        want[static_cast<size_t>(t * m.n + n)] = sum;
        bound[static_cast<size_t>(t * m.n + n)] = relative * absolute;
      }
    }
    expect_within(y, want, bound, what);
  }
};

TEST_P(LinearTest, EveryFormatMatchesFp64) {
  const auto backend = make_backend();
  for (const WeightFormat& format : weight_formats()) {
    for (const auto& [n, k, rows] :
         {std::array<int64_t, 3>{67, 384, 5}, {16, 128, 33}, {1, 256, 1}, {200, 896, 2}}) {
      const HostMatrix host = random_matrix(format, n, k, 11);
      const Matrix w = backend->upload_matrix(host, "w");
      const Values x = random_values(static_cast<size_t>(rows * k), 12);
      const std::string what = format.name + " " + std::to_string(n) + " x " + std::to_string(k);
      expect_product(multiply(*backend, w, x, rows, rows), host, x, rows, backend->act_dtype(), what);
    }
  }
}

// Even K that no vector length divides, as dense models may have it.
TEST_P(LinearTest, OddDenseShapes) {
  const auto backend = make_backend();
  for (const auto& [n, k, rows] :
       {std::array<int64_t, 3>{3, 2, 1}, {17, 34, 4}, {65, 576, 19}, {31, 1538, 3}, {1, 6, 1}}) {
    const HostMatrix host = random_matrix(weight_formats().front(), n, k, 13);
    const Matrix w = backend->upload_matrix(host, "w");
    const Values x = random_values(static_cast<size_t>(rows * k), 14);
    expect_product(multiply(*backend, w, x, rows, rows), host, x, rows, backend->act_dtype(),
                   std::to_string(n) + " x " + std::to_string(k));
  }
}

// The down projection of Mistral 7B, fewer output channels.
TEST_P(LinearTest, LongRows) {
  const auto backend = make_backend();
  for (const char* name : {"bf16", "codebook"}) {
    for (const WeightFormat& format : weight_formats()) {
      if (format.name != name) continue;
      const HostMatrix host = random_matrix(format, 96, 14336, 15);
      const Matrix w = backend->upload_matrix(host, "w");
      const Values x = random_values(2 * 14336, 16);
      expect_product(multiply(*backend, w, x, 2, 2), host, x, 2, backend->act_dtype(), format.name);
    }
  }
}

// Rows one at a time or in any grouping, on any number of threads: the same bits.
TEST_P(LinearTest, SameBitsHoweverGrouped) {
  constexpr int64_t kN = 150, kK = 640, kRows = 70;
  const Values x = random_values(kRows * kK, 17);
  for (const WeightFormat& format : weight_formats()) {
    const HostMatrix host = random_matrix(format, kN, kK, 18);
    Values reference;
    for (int threads = 1; threads <= most_threads(); ++threads) {
      const auto backend = make_backend(threads);
      const Matrix w = backend->upload_matrix(host, "w");
      for (int64_t group :
           {kRows, int64_t{1}, int64_t{2}, int64_t{3}, int64_t{5}, int64_t{16}, int64_t{17}, int64_t{33}}) {
        const Values y = multiply(*backend, w, x, kRows, group);
        if (reference.empty()) reference = y;
        expect_same_bits(y, reference,
                         format.name + " in groups of " + std::to_string(group) + " on " +
                             std::to_string(threads) + " threads");
      }
    }
  }
}

TEST_P(LinearTest, EmbedReadsRows) {
  const auto backend = make_backend();
  for (const WeightFormat& format : weight_formats()) {
    const HostMatrix host = random_matrix(format, 70, 256, 19);
    const Matrix table = backend->upload_matrix(host, "table");
    const std::vector<int32_t> tokens = {69, 0, 13, 13, 64};
    const DeviceTensor ids(*backend, tokens), x(*backend, DType::f32, 5, 256, 260);
    backend->embed(ids.view(), table, x.view());
    std::vector<double> want, bound;
    for (int32_t token : tokens) {
      for (float value : exact_row(host, token, backend->act_dtype())) {
        want.push_back(value);
        bound.push_back(format.quant && backend->act_dtype() == DType::bf16
                            ? 1.01 * storage_epsilon(DType::bf16) * std::abs(double{value})
                            : 0.0);
      }
    }
    expect_within(x.download(), want, bound, format.name);
  }
}

TRAMONTANE_OPS_SUITE(LinearTest);

}  // namespace
}  // namespace tramontane::ops
