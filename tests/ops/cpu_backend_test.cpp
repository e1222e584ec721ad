#include "cpu/cpu_backend.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "cpu/cpu_features.h"

namespace tramontane {
namespace {

std::string error_of(const CpuOptions& options) {
  try {
    make_cpu_backend(options);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "no error";
}

TEST(CpuBackend, SaysWhatItRunsOn) {
  EXPECT_EQ(make_cpu_backend({.threads = 1, .kernels = "scalar", .f32 = false})->description(),
            "cpu (scalar, 1 thread)");
  EXPECT_EQ(make_cpu_backend({.threads = 3, .kernels = "", .f32 = true})->description(),
            "cpu (scalar f32, 3 threads)");
}

TEST(CpuBackend, TakesAnAvailableSetByDefault) {
  const std::vector<std::string> sets = available_cpu_kernels();
  EXPECT_EQ(sets.front(), "scalar");
  const std::string description =
      make_cpu_backend({.threads = 2, .kernels = "", .f32 = false})->description();
  EXPECT_TRUE(std::any_of(sets.begin(), sets.end(), [&](const std::string& set) {
    return description == "cpu (" + set + ", 2 threads)";
  })) << description;
}

TEST(CpuBackend, TellsWhatAMatrixWillTake) {
  const std::vector<float> weights(33 * 64);
  HostMatrix matrix;
  matrix.n = 33;
  matrix.k = 64;
  matrix.dense_dtype = DType::f32;
  matrix.codes = std::as_bytes(std::span(weights));
  std::vector<CpuOptions> all = {{.threads = 1, .kernels = "", .f32 = true}};
  for (const std::string& set : available_cpu_kernels())
    all.push_back({.threads = 1, .kernels = set, .f32 = false});
  for (const CpuOptions& options : all) {
    const auto backend = make_cpu_backend(options);
    EXPECT_EQ(backend->matrix_bytes(matrix), backend->upload_matrix(matrix, "w").bytes()) << options.kernels;
  }
}

TEST(CpuBackend, ActivationsFollowTheArithmetic) {
  EXPECT_EQ(make_cpu_backend({.threads = 1, .kernels = "", .f32 = false})->act_dtype(), DType::bf16);
  EXPECT_EQ(make_cpu_backend({.threads = 1, .kernels = "", .f32 = true})->act_dtype(), DType::f32);
}

TEST(CpuBackend, RefusesWhatItCannotDo) {
  EXPECT_NE(error_of({.threads = 1, .kernels = "sse9", .f32 = false}).find("\"sse9\" is unknown"),
            std::string::npos);
  EXPECT_NE(error_of({.threads = -1, .kernels = "", .f32 = false}).find("-1 is negative"), std::string::npos);
  EXPECT_NE(error_of({.threads = 1, .kernels = "avx2", .f32 = true}).find("F32 arithmetic"),
            std::string::npos);
}

TEST(CpuBackend, BuffersAreAlignedAndZero) {
  const auto backend = make_cpu_backend({.threads = 1, .kernels = "scalar", .f32 = false});
  for (size_t bytes : {size_t{1}, size_t{100}, size_t{3} << 20, (size_t{5} << 20) + 7}) {
    const Buffer buffer = backend->allocate(bytes, "test");
    EXPECT_EQ(buffer.size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_TRUE(
        std::all_of(buffer.data(), buffer.data() + bytes, [](std::byte b) { return b == std::byte{0}; }));
  }
  EXPECT_EQ(backend->allocate(0, "nothing").data(), nullptr);
}

TEST(CpuBackend, NamesTheBufferThatDoesNotFit) {
  const auto backend = make_cpu_backend({.threads = 1, .kernels = "scalar", .f32 = false});
  for (size_t bytes : {size_t{1} << 50, SIZE_MAX}) {
    try {
      backend->allocate(bytes, "KV cache");
      FAIL() << "allocated " << bytes;
    } catch (const std::runtime_error& error) {
      EXPECT_NE(std::string(error.what()).find("not enough memory for KV cache: "), std::string::npos)
          << error.what();
    }
  }
}

TEST(CpuFeatures, SetsContainEachOther) {
  const CpuFeatures& features = cpu_features();
  EXPECT_TRUE(features.avx2 || !features.avx512);
  EXPECT_TRUE(features.avx512 || !features.avx512vnni);
  EXPECT_TRUE(features.avx512vnni || !features.avx512bf16);
  EXPECT_TRUE(features.avx512bf16 || !features.amx);
  EXPECT_GE(available_cores(), 1);
}

TEST(CpuFeatures, HyperthreadsAreOneCore) {
  const std::filesystem::path topology = testing::TempDir() + "topology";
  const auto tell = [&](int processor, const char* core) {
    const auto folder = topology / ("cpu" + std::to_string(processor)) / "topology";
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "core_cpus_list") << core << "\n";
  };
  tell(0, "0,4");
  tell(4, "0,4");
  tell(1, "1,5");
  EXPECT_EQ(count_cores({0, 4}, topology), 1);
  EXPECT_EQ(count_cores({0, 1, 4}, topology), 2);
  EXPECT_EQ(count_cores({0, 1, 2, 3}, topology), 4) << "of 2 and 3 nothing is known";
  EXPECT_EQ(count_cores({}, topology), 0);
}

// The compiler's own detection agrees.
TEST(CpuFeatures, AgreeWithTheCompiler) {
  __builtin_cpu_init();
  EXPECT_EQ(cpu_features().avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
  EXPECT_EQ(cpu_features().avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                       __builtin_cpu_supports("avx512vl") &&
                                       __builtin_cpu_supports("avx512dq"));
}

}  // namespace
}  // namespace tramontane
