// DeviceTensor: a matrix in device memory for tests of launchers, rows `stride` apart, filled from floats and
// read back as floats. What lies between the rows is a pattern that downloads check: kernels must not touch
// it.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/backend/tensor.h"
#include "tests/cuda_emulator/control.h"

namespace tramontane::cuda {

using Values = std::vector<float>;

inline constexpr double kF32Epsilon = 0x1p-24;  // rounding error of one FP32 operation, relative
inline constexpr double kBf16Epsilon = 0x1p-8;  // of storing as BF16

// Uniform in [low, high), the same on every machine.
inline Values random_values(size_t count, uint32_t seed, float low = -1.0f, float high = 1.0f) {
  std::mt19937 random(seed);
  Values values(count);
  for (float& value : values) value = low + (high - low) * static_cast<float>(random() >> 8) * 0x1p-24f;
  return values;
}

inline float stored_as_bf16(float value) {
  return bf16_to_float(float_to_bf16(value));
}

class DeviceTensor {
 public:
  // Elements are `values`, row-major [rows, cols], or the pattern where there are none.
  DeviceTensor(DType dtype, int64_t rows, int64_t cols, const Values& values = {}, int64_t stride = 0)
      : view_{nullptr, dtype, rows, cols, stride == 0 ? cols : stride} {
    std::vector<std::byte> bytes(size(), kPattern);
    for (size_t i = 0; i < values.size(); ++i) {
      std::byte* to = bytes.data() + offset(i);
      const uint16_t bf16 = float_to_bf16(values[i]);
      std::memcpy(to, dtype == DType::bf16 ? static_cast<const void*>(&bf16) : &values[i], size_of(dtype));
    }
    allocate(bytes);
  }
  explicit DeviceTensor(const std::vector<int32_t>& values)
      : view_{nullptr, DType::i32, 1, static_cast<int64_t>(values.size()),
              static_cast<int64_t>(values.size())} {
    std::vector<std::byte> bytes(size());
    std::memcpy(bytes.data(), values.data(), bytes.size());
    allocate(bytes);
  }
  DeviceTensor(const DeviceTensor&) = delete;
  DeviceTensor& operator=(const DeviceTensor&) = delete;
  ~DeviceTensor() { cudaFree(view_.data); }

  TensorView view() const { return view_; }
  // `count` rows from `first` on.
  TensorView rows(int64_t first, int64_t count) const {
    TensorView view = view_;
    view.data += first * view.row_stride * static_cast<int64_t>(size_of(view.dtype));
    return view.head(count);
  }

  // Row-major [rows, cols], after all work is done; fails the test when that failed.
  Values download() const {
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << emulator::report();
    std::vector<std::byte> bytes(size());
    EXPECT_EQ(cudaMemcpy(bytes.data(), view_.data, bytes.size(), cudaMemcpyDeviceToHost), cudaSuccess)
        << emulator::report();
    Values values(static_cast<size_t>(view_.rows * view_.cols));
    for (size_t i = 0; i < values.size(); ++i) {
      uint16_t bf16 = 0;
      std::byte* from = bytes.data() + offset(i);
      std::memcpy(view_.dtype == DType::bf16 ? static_cast<void*>(&bf16) : &values[i], from,
                  size_of(view_.dtype));
      if (view_.dtype == DType::bf16) values[i] = bf16_to_float(bf16);
      std::fill_n(from, size_of(view_.dtype), kPattern);
    }
    EXPECT_EQ(bytes, std::vector<std::byte>(size(), kPattern)) << "written between rows";
    return values;
  }

 private:
  static constexpr std::byte kPattern{0xfd};  // a NaN of any size

  size_t size() const { return static_cast<size_t>(view_.rows * view_.row_stride) * size_of(view_.dtype); }
  size_t offset(size_t element) const {
    const auto cols = static_cast<size_t>(view_.cols), stride = static_cast<size_t>(view_.row_stride);
    return (element / cols * stride + element % cols) * size_of(view_.dtype);
  }
  void allocate(const std::vector<std::byte>& bytes) {
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, bytes.size()), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), cudaSuccess);
    view_.data = static_cast<std::byte*>(data);
  }

  TensorView view_;
};

// Fails with the worst element (by error / bound) unless |got[i] - want[i]| <= bound[i] everywhere.
inline void expect_within(const Values& got, const std::vector<double>& want,
                          const std::vector<double>& bound, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 1;
  size_t at = got.size();
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(got[i] - want[i]);
    const double ratio = error <= bound[i] ? 0 : std::isnan(error) ? INFINITY : error / bound[i];
    if (ratio > worst) {
      worst = ratio;
      at = i;
    }
  }
  if (at < got.size())
    ADD_FAILURE() << what << ": element " << at << " is " << got[at] << ", expected " << want[at]
                  << " within " << bound[at];
}

// Fails with the first element that differs in its bits.
inline void expect_same_bits(const Values& got, const Values& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(want[i])) continue;
    ADD_FAILURE() << what << ": element " << i << " is " << got[i] << ", expected " << want[i];
    return;
  }
}

}  // namespace tramontane::cuda
