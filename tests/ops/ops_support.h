// What the differential op suite shares: device tensors filled from the host, and comparison with a bound.
// The suite speaks to Backend alone, and runs on every backend that backend_cases.h lists.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/backend.h"
#include "tests/support/backend_cases.h"

namespace tramontane::ops {

std::string case_name(const testing::TestParamInfo<BackendCase>& info);

// Runs each test of `fixture` on every backend.
#define TRAMONTANE_OPS_SUITE(fixture)                                                             \
  INSTANTIATE_TEST_SUITE_P(All, fixture, testing::ValuesIn(::tramontane::all_arithmetic_cases()), \
                           ::tramontane::ops::case_name)

class OpsTest : public testing::TestWithParam<BackendCase> {
 protected:
  std::unique_ptr<Backend> make_backend(int threads = 2) const { return GetParam().make(threads); }
  // Of tests that show that threads change nothing.
  int most_threads() const { return GetParam().is_slow ? 1 : 3; }
};

using Values = std::vector<float>;

// Rounding error of one FP32 operation, and of storing a value as `dtype`, relative.
inline constexpr double kF32Epsilon = 0x1p-24;
double storage_epsilon(DType dtype);

// Uniform in [low, high), the same on every machine.
Values random_values(size_t count, uint32_t seed, float low = -1.0f, float high = 1.0f);

// A buffer with `rows` x `cols` elements, rows `stride` apart.
class DeviceTensor {
 public:
  DeviceTensor(Backend& backend, DType dtype, int64_t rows, int64_t cols, int64_t stride = 0);
  // Values are rounded to dtype. Row-major [rows, cols].
  DeviceTensor(Backend& backend, DType dtype, int64_t rows, int64_t cols, const Values& values,
               int64_t stride = 0);
  DeviceTensor(Backend& backend, const std::vector<int32_t>& values);  // i32, one row

  TensorView view() const { return view_; }
  Values download() const;  // row-major [rows, cols]

 private:
  Backend& backend_;
  Buffer buffer_;
  TensorView view_;
};

// What storing `value` as dtype keeps of it.
float stored_as(float value, DType dtype);

// Fails with the worst element (by error / bound) unless |got[i] - want[i]| <= bound[i] everywhere.
void expect_within(const Values& got, const std::vector<double>& want, const std::vector<double>& bound,
                   const std::string& what);

// Fails with the first element that differs in its bits.
void expect_same_bits(const Values& got, const Values& want, const std::string& what);

}  // namespace tramontane::ops
