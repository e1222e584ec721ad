#include "tests/ops/ops_support.h"

#include <bit>
#include <cmath>
#include <cstring>

namespace tramontane::ops {

std::string case_name(const testing::TestParamInfo<BackendCase>& info) {
  return info.param.name;
}

double storage_epsilon(DType dtype) {
  return dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : kF32Epsilon;
}

Values random_values(size_t count, uint32_t seed, float low, float high) {
  std::mt19937 generator(seed);
  Values values(count);
  for (float& value : values) value = low + (high - low) * (static_cast<float>(generator() >> 8) * 0x1p-24f);
  return values;
}

DeviceTensor::DeviceTensor(Backend& backend, DType dtype, int64_t rows, int64_t cols, int64_t stride)
    : backend_(backend),
      buffer_(backend.allocate(static_cast<size_t>(rows * std::max(cols, stride)) * size_of(dtype), "test")) {
  view_ = {buffer_.data(), dtype, rows, cols, std::max(cols, stride)};
}

DeviceTensor::DeviceTensor(Backend& backend, DType dtype, int64_t rows, int64_t cols, const Values& values,
                           int64_t stride)
    : DeviceTensor(backend, dtype, rows, cols, stride) {
  for (int64_t r = 0; r < rows; ++r) {
    const std::span row(values.data() + r * cols, static_cast<size_t>(cols));
    std::byte* to = view_.data + r * view_.row_stride * static_cast<int64_t>(size_of(dtype));
    if (dtype == DType::f32) {
      backend.upload(to, std::as_bytes(row));
      continue;
    }
    std::vector<uint16_t> rounded;
    for (float value : row) rounded.push_back(float_to_bf16(value));
    backend.upload(to, std::as_bytes(std::span(rounded)));
  }
}

DeviceTensor::DeviceTensor(Backend& backend, const std::vector<int32_t>& values)
    : DeviceTensor(backend, DType::i32, 1, static_cast<int64_t>(values.size())) {
  backend.upload(view_.data, std::as_bytes(std::span(values)));
}

Values DeviceTensor::download() const {
  std::vector<std::byte> bytes(buffer_.size());
  backend_.download(buffer_.data(), bytes);
  Values values;
  for (int64_t r = 0; r < view_.rows; ++r) {
    for (int64_t c = 0; c < view_.cols; ++c) {
      const std::byte* at =
          bytes.data() + (r * view_.row_stride + c) * static_cast<int64_t>(size_of(view_.dtype));
      uint16_t half;
      float value;
      if (view_.dtype == DType::bf16) {
        std::memcpy(&half, at, sizeof half);
        value = bf16_to_float(half);
      } else {
        std::memcpy(&value, at, sizeof value);
      }
      values.push_back(value);
    }
  }
  return values;
}

float stored_as(float value, DType dtype) {
  return dtype == DType::bf16 ? bf16_to_float(float_to_bf16(value)) : value;
}

void expect_within(const Values& got, const std::vector<double>& want, const std::vector<double>& bound,
                   const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  ASSERT_EQ(got.size(), bound.size()) << what;
  size_t worst = 0;
  double worst_ratio = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(double{got[i]} - want[i]);
    const double ratio =
        error <= bound[i] ? error / std::max(bound[i], 1e-300) : 1 + (error - bound[i]) / (bound[i] + 1e-30);
    if (std::isnan(error) || ratio > worst_ratio) {
      worst = i;
      worst_ratio = std::isnan(error) ? INFINITY : ratio;
    }
  }
  if (got.empty() || worst_ratio <= 1) return;
  ADD_FAILURE() << what << ": element " << worst << " of " << got.size() << " is " << got[worst]
                << ", must be " << want[worst] << " within " << bound[worst] << "; off by "
                << std::abs(double{got[worst]} - want[worst]);
}

void expect_same_bits(const Values& got, const Values& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(want[i])) continue;
    FAIL() << what << ": element " << i << " of " << got.size() << " is " << got[i] << " here and " << want[i]
           << " in the reference run (difference " << got[i] - want[i] << ")";
  }
}

}  // namespace tramontane::ops
