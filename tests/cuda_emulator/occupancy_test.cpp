// How many blocks a multiprocessor has room for, and what a launch may ask for, on devices of each
// capability: against NVIDIA's own calculator, which comes with the toolkit, and figures worked out by hand.
#include <cuda_occupancy.h>
#include <cuda_runtime.h>
#include <gmock/gmock.h>

#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

namespace tramontane::emulator {
namespace {

using emulator_kernels::Resources;

const char* const kCapabilities[] = {"80", "86", "89", "90"};

int attribute(cudaDeviceAttr attr) {
  int value = -1;
  EXPECT_EQ(cudaDeviceGetAttribute(&value, attr, 0), cudaSuccess);
  return value;
}

cudaFuncAttributes attributes_of(Resources::Kernel kernel) {
  cudaFuncAttributes attributes{};
  EXPECT_EQ(cudaFuncGetAttributes(&attributes, kernel), cudaSuccess);
  return attributes;
}

int blocks(Resources::Kernel kernel, int threads, std::size_t dynamic_shared = 0) {
  int result = -1;
  EXPECT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&result, kernel, threads, dynamic_shared),
            cudaSuccess)
      << report();
  return result;
}

int calculated(Resources::Kernel kernel, int threads, std::size_t dynamic_shared) {
  cudaDeviceProp properties{};
  EXPECT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  const cudaOccDeviceProp device(properties);
  cudaOccFuncAttributes function(attributes_of(kernel));
  function.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
  const cudaOccDeviceState state;
  cudaOccResult result{};
  EXPECT_EQ(
      cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &function, &state, threads, dynamic_shared),
      CUDA_OCC_SUCCESS);
  return result.activeBlocksPerMultiprocessor;
}

class Occupancy : public EmulatorTest {};

TEST_F(Occupancy, IsWhatTheCalculatorSays) {
  for (const char* capability : kCapabilities) {
    SCOPED_TRACE(capability);
    ASSERT_TRUE(set("COMPUTE", capability));
    const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    for (const auto kernel : {Resources::thrifty, Resources::some_registers, Resources::many_registers,
                              Resources::static_shared}) {
      const int room = most - static_cast<int>(attributes_of(kernel).sharedSizeBytes);
      ASSERT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room), cudaSuccess);
      for (int threads = 1; threads <= 1024; threads += threads % 32 ? 31 : 33)
        for (int shared = 0; shared <= room; shared += 1501)
          ASSERT_EQ(blocks(kernel, threads, static_cast<std::size_t>(shared)),
                    calculated(kernel, threads, static_cast<std::size_t>(shared)))
              << threads << " threads, " << shared << " bytes";
    }
  }
}

TEST_F(Occupancy, IsLimitedByThreadsAndBlocks) {
  const struct {
    const char* capability;
    int of_1024, of_512, of_33, of_32;
  } kExpected[] = {{"80", 2, 4, 32, 32}, {"86", 1, 3, 16, 16}, {"89", 1, 3, 24, 24}, {"90", 2, 4, 32, 32}};
  for (const auto& expected : kExpected) {
    SCOPED_TRACE(expected.capability);
    ASSERT_TRUE(set("COMPUTE", expected.capability));
    EXPECT_EQ(blocks(Resources::thrifty, 1024), expected.of_1024);
    EXPECT_EQ(blocks(Resources::thrifty, 512), expected.of_512);
    EXPECT_EQ(blocks(Resources::thrifty, 33), expected.of_33);
    EXPECT_EQ(blocks(Resources::thrifty, 32), expected.of_32);
  }
  EXPECT_EQ(blocks(Resources::thrifty, 1025), 0);
  EXPECT_EQ(blocks(Resources::bounded, 96), 21) << "63 warps";
  EXPECT_EQ(blocks(Resources::bounded, 97), 0) << "its __launch_bounds__";
  int none = 0;
  EXPECT_EQ(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&none, Resources::thrifty, 0, 0),
            cudaErrorInvalidValue);
}

TEST_F(Occupancy, IsLimitedBySharedMemory) {
  const struct {
    const char* capability;
    int of_20_kib, of_80_kib;
  } kExpected[] = {{"80", 7, 2}, {"86", 4, 1}, {"89", 4, 1}, {"90", 10, 2}};
  for (const auto& expected : kExpected) {
    SCOPED_TRACE(expected.capability);
    ASSERT_TRUE(set("COMPUTE", expected.capability));
    ASSERT_EQ(
        cudaFuncSetAttribute(Resources::thrifty, cudaFuncAttributeMaxDynamicSharedMemorySize, 80 * 1024),
        cudaSuccess);
    EXPECT_EQ(blocks(Resources::thrifty, 128, 20 * 1024), expected.of_20_kib);
    EXPECT_EQ(blocks(Resources::thrifty, 128, 80 * 1024), expected.of_80_kib);
    EXPECT_EQ(blocks(Resources::thrifty, 128, 80 * 1024 + 1), 0) << "more than was asked for";
  }
}

TEST_F(Occupancy, WithoutAskingABlockHas48KibOfSharedMemory) {
  EXPECT_EQ(attributes_of(Resources::static_shared).sharedSizeBytes, 20000u);
  EXPECT_EQ(attributes_of(Resources::static_shared).maxDynamicSharedSizeBytes, 48 * 1024 - 20000);
  EXPECT_EQ(blocks(Resources::static_shared, 128, 48 * 1024 - 20000), 3);
  EXPECT_EQ(blocks(Resources::static_shared, 128, 48 * 1024 - 20000 + 1), 0);
  DeviceArray<float> x(std::vector<float>(5000, 1)), y(128);
  EXPECT_EQ(Resources::launch(Resources::static_shared, x.get(), y.get(), 128, 48 * 1024 - 20000),
            cudaSuccess);
  EXPECT_EQ(Resources::launch(Resources::static_shared, x.get(), y.get(), 128, 48 * 1024 - 20000 + 1),
            cudaErrorInvalidValue);
}

// Of the machine code, which a build of PTX alone has none of.
TEST_F(Occupancy, IsLimitedByRegisters) {
#ifdef EMULATOR_TEST_PTX_ALONE
  GTEST_SKIP() << "only PTX was compiled";
#endif
  const cudaFuncAttributes many = attributes_of(Resources::many_registers);
  ASSERT_GT(many.numRegs, 100);
  ASSERT_LE(many.numRegs, 128);
  EXPECT_LT(attributes_of(Resources::thrifty).numRegs, 32);
  // Four parts of 16384 registers; a warp takes so many lots of 256.
  const int in_each_part = 16384 / ((many.numRegs + 7) / 8 * 256);
  EXPECT_EQ(many.maxThreadsPerBlock, in_each_part * 4 * 32);
  for (const char* capability : kCapabilities) {
    ASSERT_TRUE(set("COMPUTE", capability));
    EXPECT_EQ(blocks(Resources::many_registers, 128), in_each_part);
    EXPECT_EQ(blocks(Resources::many_registers, 32),
              std::min(in_each_part * 4, blocks(Resources::thrifty, 32)));
    EXPECT_EQ(blocks(Resources::many_registers, 1024), 0);
  }
  const int some = attributes_of(Resources::some_registers).numRegs;
  ASSERT_GT(some, 64);
  ASSERT_LE(some, 72);
  EXPECT_EQ(blocks(Resources::some_registers, 128), 7) << "9 lots a warp, of 64 in each part";
  DeviceArray<float> x(std::vector<float>(100, 1)), y(1024);
  EXPECT_EQ(Resources::launch(Resources::many_registers, x.get(), y.get(), 512), cudaSuccess);
  EXPECT_EQ(Resources::launch(Resources::many_registers, x.get(), y.get(), 1024),
            cudaErrorLaunchOutOfResources);
  EXPECT_THAT(report(), ::testing::HasSubstr("registers"));
  EXPECT_EQ(Resources::launch(Resources::thrifty, x.get(), y.get(), 64), cudaSuccess)
      << "the context is whole";
}

TEST_F(Occupancy, LimitsFollowTheCapability) {
  const struct {
    const char* capability;
    int block_kib, processor_kib, threads;
  } kExpected[] = {{"75", 64, 64, 1024},
                   {"80", 163, 164, 2048},
                   {"86", 99, 100, 1536},
                   {"89", 99, 100, 1536},
                   {"90", 227, 228, 2048}};
  for (const auto& expected : kExpected) {
    SCOPED_TRACE(expected.capability);
    ASSERT_TRUE(set("COMPUTE", expected.capability));
    EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin), expected.block_kib * 1024);
    EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor), expected.processor_kib * 1024);
    EXPECT_EQ(attribute(cudaDevAttrMaxSharedMemoryPerBlock), 48 * 1024);
    EXPECT_EQ(attribute(cudaDevAttrMaxThreadsPerMultiProcessor), expected.threads);
    const int most = expected.block_kib * 1024;
    EXPECT_EQ(cudaFuncSetAttribute(Resources::thrifty, cudaFuncAttributeMaxDynamicSharedMemorySize, most),
              cudaSuccess);
    EXPECT_EQ(cudaFuncSetAttribute(Resources::thrifty, cudaFuncAttributeMaxDynamicSharedMemorySize, most + 1),
              cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace tramontane::emulator
