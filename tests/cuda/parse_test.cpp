// Every kernel of cuda/ is parsed and lowered by the PTX emulator, those too that no other test launches.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include "tests/cuda_emulator/control.h"

namespace tramontane::cuda {
namespace {

TEST(ProductKernels, HoldNoInstructionThatTheEmulatorDoesNotKnow) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "needs the PTX emulator, this is a real CUDA runtime";
  // The whole library is linked, so this counts every instantiation in every table: far more than a few.
  EXPECT_GT(emulator::kernels(), 50);
  EXPECT_EQ(emulator::unsupported(), "");
}

}  // namespace
}  // namespace tramontane::cuda
