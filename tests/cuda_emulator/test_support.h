// Device arrays for tests, and the fixture of tests that provoke faults.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "tests/cuda_emulator/control.h"

namespace tramontane::emulator {

// An array in device memory; freed with the object.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  // The values after all work is done. The test fails when that failed.
  std::vector<T> values() const {
    std::vector<T> result(count_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << report();
    EXPECT_EQ(cudaMemcpy(result.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess)
        << report();
    return result;
  }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

inline std::vector<float> random_floats(std::size_t count, unsigned seed, float most = 1.0f) {
  std::mt19937 random(seed);
  std::vector<float> result(count);
  for (float& x : result) x = (static_cast<float>(random() % 2001) / 1000.0f - 1.0f) * most;
  return result;
}

inline std::vector<uint32_t> random_bits(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<uint32_t> result(count);
  for (uint32_t& x : result) x = static_cast<uint32_t>(random());
  return result;
}

// Each test begins with a device without faults, and every option as it was.
class EmulatorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!is_emulated()) GTEST_SKIP() << "needs the PTX emulator, this is a real CUDA runtime";
    cudaDeviceReset();
    reset_options();
  }
  void TearDown() override {
    if (!is_emulated()) return;
    cudaDeviceReset();
    reset_options();
  }
  static void reset_options() {
    for (const auto& [name, value] : {std::pair{"SEED", "1"},
                                      {"GRAPH_MEMORY", "0"},
                                      {"STREAMS", "random"},
                                      {"MEMCHECK", "1"},
                                      {"RACECHECK", "1"},
                                      {"SYNCCHECK", "1"},
                                      {"INITCHECK", "1"},
                                      {"WATCHDOG", "4000000000"},
                                      {"DEVICES", "1"},
                                      {"DRIVER", "13000"},
                                      {"COMPUTE", "80"},
                                      {"FAIL_CALL", ""},
                                      {"FAIL_LAUNCH", ""},
                                      {"FAIL_RUN", ""}})
      EXPECT_TRUE(set(name, value)) << name;
  }
};

}  // namespace tramontane::emulator
