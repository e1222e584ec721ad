// Every checker is proven by kernels that are broken on purpose: each must be refused, by the right checker,
// with its place.
#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

#include <gmock/gmock.h>

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;
using ::testing::AllOf;
using ::testing::HasSubstr;

class Checkers : public EmulatorTest {
 protected:
  static constexpr int kCount = 1024;
  void SetUp() override {
    EmulatorTest::SetUp();
    if (IsSkipped()) return;
    const std::vector<float> values(kCount, 1.0f);
    x_ = upload(values);
    y_ = upload(values);
  }
  static float* upload(const std::vector<float>& values) {
    float* p = nullptr;
    EXPECT_EQ(cudaMalloc(reinterpret_cast<void**>(&p), values.size() * 4), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(p, values.data(), values.size() * 4, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
  }
  // The work up to now fails with this error and a report of this kernel in broken.cu.
  void expect_fault(cudaError_t error, const std::string& what, const std::string& kernel) {
    EXPECT_EQ(cudaDeviceSynchronize(), error);
    EXPECT_THAT(report(),
                AllOf(HasSubstr(what), HasSubstr(kernel), HasSubstr("by thread ("), HasSubstr("broken.cu:")));
    EXPECT_EQ(cudaGetLastError(), error) << "a fault stays";
  }
  void expect_fine() { EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess) << report(); }

  float *x_ = nullptr, *y_ = nullptr;
};

TEST_F(Checkers, MemcheckFindsAccessBeyondTheEnd) {
  out_of_bounds(x_, y_, kCount);
  expect_fault(cudaErrorIllegalAddress, "0 bytes past the end of an allocation of 4096 bytes",
               "out_of_bounds_kernel");
  EXPECT_THAT(report(), HasSubstr("thread (0,0,0) of block (4,0,0)"));
}
TEST_F(Checkers, MemcheckFindsMisalignedAccess) {
  misaligned(x_, y_);
  expect_fault(cudaErrorMisalignedAddress, "misaligned read of 16 bytes", "misaligned_kernel");
}
TEST_F(Checkers, MemcheckFindsUseAfterFree) {
  ASSERT_EQ(cudaFree(x_), cudaSuccess);
  plain_copy(x_, y_, kCount);
  expect_fault(cudaErrorIllegalAddress, "in memory that was freed", "copy_kernel");
}
TEST_F(Checkers, MemcheckFindsHostPointers) {
  plain_copy(std::vector<float>(kCount).data(), y_, kCount);
  expect_fault(cudaErrorIllegalAddress, "which is no device address", "copy_kernel");
}
TEST_F(Checkers, MemcheckFindsSharedAccessBeyondTheEnd) {
  shared_out_of_bounds(y_);
  expect_fault(cudaErrorIllegalAddress, "the block has 256 bytes of shared memory",
               "shared_out_of_bounds_kernel");
}
TEST_F(Checkers, HostCannotTouchDeviceMemory) {
  EXPECT_DEATH(*const_cast<volatile float*>(x_) = 1, "");
}

TEST_F(Checkers, RacecheckFindsMissingBarrier) {
  race_between_warps(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "after", "race_between_warps_kernel");
  EXPECT_THAT(report(), HasSubstr("shared memory race"));
}
TEST_F(Checkers, RacecheckFindsWriteAfterRead) {
  race_write_after_read(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "shared memory race", "race_write_after_read_kernel");
}
TEST_F(Checkers, RacecheckFindsMissingSyncwarp) {
  race_in_warp(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "shared memory race (read after write", "in_warp_kernel");
  cudaDeviceReset();
  Checkers::SetUp();
  fine_in_warp(x_, y_);
  expect_fine();
}
TEST_F(Checkers, RacecheckKnowsWhomANamedBarrierJoins) {
  race_wrong_named_barrier(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "shared memory race", "wrong_named_barrier_kernel");
}
TEST_F(Checkers, RacecheckFindsCopyIntoAStageThatOthersStillRead) {
  race_stage_overwritten(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "shared memory race", "stage_overwritten_kernel");
}

TEST_F(Checkers, RacecheckFindsWhatABlockReadsUnpublished) {
  for (const Publish how : {Publish::kNothing, Publish::kTooEarly, Publish::kTooLate}) {
    cudaDeviceReset();
    Checkers::SetUp();
    DeviceArray<unsigned> counter(std::vector<unsigned>{0});
    race_between_blocks(how, x_, y_, counter.get(), y_ + 100);
    expect_fault(cudaErrorLaunchFailure, "with no __threadfence() after it", "between_blocks_kernel");
  }
  for (const Publish how : {Publish::kFence, Publish::kRelease}) {
    cudaDeviceReset();
    Checkers::SetUp();
    DeviceArray<unsigned> counter(std::vector<unsigned>{0});
    for (int launch = 0; launch < 3; ++launch) race_between_blocks(how, x_, y_, counter.get(), y_ + 100);
    expect_fine();
  }
}

TEST_F(Checkers, CheckersCanBeSwitchedOff) {
  ASSERT_TRUE(set("RACECHECK", "0"));
  race_between_warps(x_, y_);
  expect_fine();
  EXPECT_FALSE(set("RACECHECK", "maybe"));
  EXPECT_FALSE(set("NO_SUCH_OPTION", "1"));
}

TEST_F(Checkers, SynccheckFindsDivergentBarrier) {
  divergent_barrier(y_);
  expect_fault(cudaErrorLaunchFailure, "divergent synchronisation", "divergent_barrier_kernel");
}
TEST_F(Checkers, SynccheckAllowsThreadsThatLeftBefore) {
  fine_early_exit(y_, 40);
  expect_fine();
}
TEST_F(Checkers, SynccheckFindsUnequalBarriers) {
  unequal_barriers(y_);
  expect_fault(cudaErrorLaunchFailure, "unequal barriers", "unequal_barriers_kernel");
}
TEST_F(Checkers, SynccheckFindsBarrierThatNeverCompletes) {
  missing_barrier_in_warp(y_);
  expect_fault(cudaErrorLaunchFailure, "barrier 1 never completes", "missing_barrier_kernel");
}
TEST_F(Checkers, SynccheckFindsAbsentLanes) {
  absent_lane(y_);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorLaunchFailure);
  EXPECT_THAT(report(), AllOf(HasSubstr("divergent synchronisation"), HasSubstr("absent_lane_kernel"),
                              HasSubstr("shfl.sync.bfly")));
}
TEST_F(Checkers, SynccheckFindsBadThreadCount) {
  ASSERT_EQ(cudaMemset(x_, 1, 4096), cudaSuccess);
  divide_barrier_count(reinterpret_cast<int*>(x_));
  expect_fault(cudaErrorLaunchFailure, "no multiple of a warp", "barrier_count_kernel");
}

TEST_F(Checkers, InitcheckFindsUnwrittenGlobalMemory) {
  float* fresh = nullptr;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&fresh), kCount * 4), cudaSuccess);
  ASSERT_EQ(cudaMemset(fresh, 0, (kCount - 1) * 4), cudaSuccess);
  plain_copy(fresh, y_, kCount - 1);
  expect_fine();
  plain_copy(fresh, y_, kCount);
  expect_fault(cudaErrorLaunchFailure, "never written", "copy_kernel");
}
TEST_F(Checkers, FreshMemoryIsPoison) {
  ASSERT_TRUE(set("INITCHECK", "0"));
  float *fresh = nullptr, value = 0;
  ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&fresh), kCount * 4), cudaSuccess);
  plain_copy(fresh, y_, kCount);
  ASSERT_EQ(cudaMemcpy(&value, y_ + 5, 4, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_NE(value, value) << "must be NaN";
}
TEST_F(Checkers, InitcheckFindsUnwrittenSharedMemory) {
  unwritten_shared(y_);
  expect_fault(cudaErrorLaunchFailure, "never written", "unwritten_shared_kernel");
}
TEST_F(Checkers, InitcheckFindsMissingWaitForAsynchronousCopy) {
  missing_copy_wait(x_, y_);
  expect_fault(cudaErrorLaunchFailure, "cp.async was not waited for", "missing_copy_wait_kernel");
}

TEST_F(Checkers, UnknownInstructionIsALoudFault) {
  unknown_instruction(reinterpret_cast<double*>(y_));
  expect_fault(cudaErrorIllegalInstruction, "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64",
               "unknown_instruction_kernel");
  cudaDeviceReset();
  EXPECT_THAT(unsupported(), HasSubstr("no form mma.sync.aligned.m8n8k4"));
}
TEST_F(Checkers, AssertFails) {
  ASSERT_EQ(cudaMemset(x_, 1, 4096), cudaSuccess);
  failing_assert(reinterpret_cast<int*>(x_));
  expect_fault(cudaErrorAssert, "x[threadIdx.x] < 5", "failing_assert_kernel");
}
TEST_F(Checkers, LoopWithoutEndIsEnded) {
  ASSERT_TRUE(set("WATCHDOG", "200000"));
  ASSERT_EQ(cudaMemset(x_, 0, 4096), cudaSuccess);
  endless_loop(reinterpret_cast<int*>(x_));
  expect_fault(cudaErrorLaunchTimeout, "no progress", "endless_loop_kernel");
}

TEST_F(Checkers, BadCallsAreRefusedAndDoNotStay) {
  saxpy(-300, 1, x_, y_);  // a grid of no blocks
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidConfiguration);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_EQ(cudaMemcpy(y_, x_, 4100, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
  EXPECT_THAT(report(), HasSubstr("cudaMemcpy"));
  EXPECT_EQ(cudaFree(x_ + 1), cudaErrorInvalidValue);
  void* p = nullptr;
  EXPECT_EQ(cudaMalloc(&p, size_t{1} << 40), cudaErrorMemoryAllocation);
  expect_fine();
}

}  // namespace
}  // namespace tramontane::emulator
