// Every kernel of cuda/ is parsed and lowered by the PTX emulator, those too that no other test launches.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>

#include "tests/cuda_emulator/control.h"

namespace tramontane::cuda {
namespace {

#define EMULATOR_OR_SKIP() \
  if (!emulator::is_emulated()) GTEST_SKIP() << "needs the PTX emulator, this is a real CUDA runtime"

TEST(ProductKernels, HoldNoInstructionThatTheEmulatorDoesNotKnow) {
  EMULATOR_OR_SKIP();
  EXPECT_EQ(emulator::unsupported(), "");
}

// The names of the kernels that a source file defines.
std::vector<std::string> kernels_in(const std::filesystem::path& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto matches = [&](const char* pattern) {
    const std::regex regex(pattern);
    return std::vector<std::smatch>(std::sregex_iterator(text.begin(), text.end(), regex), {});
  };
  std::vector<std::string> names;
  for (const std::smatch& match : matches(R"(__global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\()"))
    names.push_back(match[1]);
  EXPECT_EQ(names.size(), matches("__global__").size())
      << path << ": a definition that this test cannot read";
  return names;
}

// A file that the build lost takes its kernels with it, and nothing else here would tell.
TEST(ProductKernels, AreAllInTheLibrary) {
  EMULATOR_OR_SKIP();
  const std::string registered = emulator::kernels();
  int defined = 0;
  for (const auto& entry : std::filesystem::directory_iterator(TRAMONTANE_SOURCE_DIR "/cuda"))
    for (const std::string& name : kernels_in(entry.path())) {
      ++defined;
      EXPECT_TRUE(std::regex_search(registered, std::regex("::" + name + "[<(]")))
          << name << " of " << entry.path();
    }
  EXPECT_GT(defined, 0);
}

}  // namespace
}  // namespace tramontane::cuda
