// probe_device: what makes a device usable, and what is said of one that is not.
#include "cuda/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

#include "cuda/cuda_backend.h"
#include "tests/cuda_emulator/control.h"

namespace tramontane::cuda {
namespace {

using testing::HasSubstr;

// An option of the emulator for the length of a test.
class Emulated {
 public:
  Emulated(const char* name, const char* value, const char* usual) : name_(name), usual_(usual) {
    EXPECT_TRUE(emulator::set(name, value));
  }
  ~Emulated() { emulator::set(name_, usual_); }
  Emulated(const Emulated&) = delete;
  Emulated& operator=(const Emulated&) = delete;

 private:
  const char *name_, *usual_;
};

#define EMULATOR_OR_SKIP() \
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to be another"

TEST(Device, IsDescribed) {
  const DeviceProbe probe = probe_device(0);
  ASSERT_TRUE(probe.device) << probe.why_not;
  EXPECT_GE(probe.device->compute_major, 8);
  EXPECT_GT(probe.device->multiprocessors, 0);
  EXPECT_GT(probe.device->free_bytes, 0u);
  EXPECT_LE(probe.device->free_bytes, probe.device->total_bytes);
  EXPECT_THAT(probe.device->to_string(), HasSubstr("compute capability"));
  std::printf("device: %s\n", probe.device->to_string().c_str());  // script/test shows it
  EXPECT_THAT(make_cuda_backend()->description(), HasSubstr(probe.device->name));
}

TEST(Device, OneThatIsNotThereIsNamed) {
  EXPECT_THAT(probe_device(999).why_not, HasSubstr("--device 999: there"));
  EXPECT_THAT(probe_device(-1).why_not, HasSubstr("--device -1"));
}

TEST(Device, SaysWhyThereIsNone) {
  EMULATOR_OR_SKIP();
  {
    const Emulated none("DEVICES", "0", "1");
    EXPECT_EQ(probe_device(0).why_not, "no CUDA device on this machine");
    EXPECT_THROW(make_cuda_backend(), std::runtime_error);
  }
  {
    const Emulated none("DRIVER", "0", "13000");
    EXPECT_EQ(probe_device(0).why_not, "no CUDA driver on this machine");
  }
  {
    const Emulated old("DRIVER", "12040", "13000");
    EXPECT_EQ(probe_device(0).why_not,
              "the CUDA driver is too old: it knows CUDA 12.4, this program needs 13.0");
  }
  {
    const Emulated turing("COMPUTE", "75", "80");
    EXPECT_THAT(probe_device(0).why_not,
                HasSubstr("compute capability 7.5, at least 8.0 (Ampere) is needed"));
  }
  EXPECT_TRUE(probe_device(0).device) << probe_device(0).why_not;
}

}  // namespace
}  // namespace tramontane::cuda
