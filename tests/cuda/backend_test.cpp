// The CUDA backend around its kernels: copies, memory, and what a failing device leads to. Steps:
// steps_test.cpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include <cstdlib>
#include <random>
#include <span>

#include "tests/cuda/backend_support.h"
#include "tests/cuda_emulator/control.h"
#include "tests/engine/engine_support.h"
#include "tests/ops/ops_support.h"

namespace tramontane {
namespace {

using testing::HasSubstr;

std::vector<std::byte> bytes_of(size_t count, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(generator());
  return bytes;
}

// Staging memory is used again and again: nothing may be written into it before its copy is over.
TEST(CudaCopies, ArriveWholeInAnySize) {
  const auto backend = make_backend();
  std::vector<std::pair<Buffer, std::vector<std::byte>>> sent;
  for (const size_t size : {size_t{1}, size_t{1000}, size_t{1} << 20, (size_t{5} << 20) + 17, size_t{64}}) {
    for (uint32_t i = 0; i < 3; ++i) {
      sent.emplace_back(backend->allocate(size, "test"), bytes_of(size, i));
      backend->upload(sent.back().first.data(), sent.back().second);
    }
  }
  for (const auto& [buffer, bytes] : sent) {
    std::vector<std::byte> back(bytes.size());
    backend->download(buffer.data(), back);
    EXPECT_TRUE(back == bytes) << bytes.size() << " bytes";
  }
}

TEST(CudaCopies, OfManyStepsAreInOrder) {
  const auto backend = make_backend();
  const Buffer one = backend->allocate(4000, "test");
  std::vector<Buffer> rows;
  ops::Values expected;
  const ops::DeviceTensor index(*backend, std::vector<int32_t>{0});
  for (int step = 0; step < 600; ++step) {  // 2.4 MB: every slot is used several times
    const ops::Values values(1000, static_cast<float>(step));
    backend->upload(one.data(), std::as_bytes(std::span(values)));
    rows.push_back(backend->allocate(4000, "test"));
    backend->gather_rows(one.view(DType::f32, 1, 1000), index.view(), rows.back().view(DType::f32, 1, 1000));
  }
  for (int step = 0; step < 600; ++step) {
    ops::Values values(1000);
    backend->download(rows[step].data(), std::as_writable_bytes(std::span(values)));
    ASSERT_EQ(values, ops::Values(1000, static_cast<float>(step))) << "step " << step;
  }
}

// Weights come on a stream of their own: a product that follows at once must wait for them, whenever the
// device takes up either stream.
TEST(CudaCopies, WeightsAreThereWhenTheyAreUsed) {
  const std::vector<uint16_t> ones(32 * 64, float_to_bf16(1.0f));
  HostMatrix host;
  host.n = 32, host.k = 64;
  host.codes = std::as_bytes(std::span(ones));
  for (const char* order : {"late", "eager", "random"}) {
    emulator::set("STREAMS", order);
    const auto backend = make_backend();
    const Buffer x = backend->allocate(64 * 2, "x"), y = backend->allocate(32 * 4, "y");
    backend->upload(x.data(), std::as_bytes(std::span(ones)).first(64 * 2));
    const Matrix w = backend->upload_matrix(host, "w");
    backend->linear(x.view(DType::bf16, 1, 64), w, y.view(DType::f32, 1, 32));
    ops::Values got(32);
    backend->download(y.data(), std::as_writable_bytes(std::span(got)));
    EXPECT_EQ(got, ops::Values(32, 64.0f)) << order;
  }
}

TEST(CudaMemory, IsZeroAndCounted) {
  const auto backend = make_backend();
  const uint64_t before = backend->memory().bytes;
  EXPECT_LE(before, kMemory);
  EXPECT_TRUE(backend->memory().dedicated);
  const Buffer buffer = backend->allocate(10'000'000, "test");
  EXPECT_EQ(before - backend->memory().bytes, 5u << 21);  // pages of 2 MiB
  std::vector<std::byte> back(buffer.size());
  backend->download(buffer.data(), back);
  EXPECT_EQ(back, std::vector<std::byte>(buffer.size()));
}

TEST(CudaMemory, SharesAreOfTheWhole) {
  const uint64_t half = make_cuda_backend({.memory_share = 0.5})->memory().bytes;
  const uint64_t quarter = make_cuda_backend({.memory_share = 0.25})->memory().bytes;
  EXPECT_NEAR(static_cast<double>(half), 2.0 * static_cast<double>(quarter), 1e6);
}

// What is free may be less than --gpu-memory says, and then it is not what to raise. Room for kernels stays.
TEST(CudaMemory, MayBeLimitedByWhatIsFree) {
  const auto share = make_cuda_backend({.memory_share = 0.5}), all = make_cuda_backend({.memory_share = 1.0});
  EXPECT_EQ(share->memory().remedy, "raise --gpu-memory");
  size_t free = 0, total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  EXPECT_EQ(all->memory().bytes, free - (64 << 20));
  EXPECT_EQ(all->memory().remedy, "end other programs on this GPU");
  void* other = nullptr;
  ASSERT_EQ(cudaMalloc(&other, free - (65 << 20)), cudaSuccess);
  EXPECT_EQ(share->memory().remedy, "end other programs on this GPU");
  try {
    plan_memory(*share, tiny_checkpoint(), {});
    ADD_FAILURE() << "fits into 1 MiB";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("end other programs on this GPU, lower --kv-cache-bytes"));
    EXPECT_THAT(error.what(), testing::Not(HasSubstr("raise")));
  }
  ASSERT_EQ(cudaFree(other), cudaSuccess);
  ASSERT_EQ(cudaMalloc(&other, free - (30 << 20)), cudaSuccess);  // less than kernels are given
  EXPECT_EQ(share->memory().bytes, 1u) << "0 would be: cannot tell";
  ASSERT_EQ(cudaFree(other), cudaSuccess);
}

TEST(CudaMemory, SaysWhatDidNotFit) {
  const auto backend = make_backend();
  try {
    backend->allocate(size_t{1} << 50, "KV cache");
    FAIL() << "allocated a petabyte";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("KV cache: 1125899906842624 bytes wanted"));
    EXPECT_THAT(error.what(), HasSubstr("--gpu-memory"));
  }
}

TEST(CudaMemory, APlanThatDoesNotFitNamesTheOption) {
  const auto backend = make_cuda_backend({.memory_bytes = uint64_t{4} << 20});
  try {
    plan_memory(*backend, tiny_checkpoint(), {});
    FAIL() << "fits into 4 MiB";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("not enough memory"));
    EXPECT_THAT(error.what(), HasSubstr("raise --gpu-memory"));
  }
}

// What the plan says of the weights is what they take.
TEST(CudaMemory, ThePlanIsExactAboutWeightsAndWorkspace) {
  const auto backend = make_backend();
  const EngineOptions options{.max_model_len = 512, .max_sequences = 8, .kv_cache_bytes = kPlenty};
  const MemoryPlan plan = plan_memory(*backend, tiny_checkpoint(), options);
  const uint64_t before = backend->memory().bytes;
  const Engine engine(*backend, tiny_checkpoint(), options);
  const uint64_t taken = before - backend->memory().bytes;
  const uint64_t planned = plan.weight_bytes + plan.workspace_bytes + plan.kv_bytes;
  // Rounding up to pages of 2 MiB, of the workspace's and the cache's few buffers.
  EXPECT_GE(taken + (1 << 20), planned);
  EXPECT_LE(taken, planned + (16 << 20));
}

TEST(CudaRows, DecodeStepsTakeFewSizes) {
  const auto backend = make_backend();
  const std::vector<std::pair<int32_t, int32_t>> sizes = {{1, 1},   {2, 2},     {3, 4},     {5, 8},
                                                          {8, 8},   {9, 16},    {17, 24},   {63, 64},
                                                          {64, 64}, {200, 200}, {256, 256}, {300, 300}};
  for (const auto& [rows, padded] : sizes) EXPECT_EQ(backend->padded_rows(rows, 4096), padded);
  EXPECT_EQ(backend->padded_rows(9, 10), 10) << "never more than may run";
  EXPECT_EQ(make_backend(false)->padded_rows(9, 4096), 9);
}

// --- failures

// The engine's end after `failure` strikes on the emulator: what its requests were told and what is kept.
std::string failure_of(const char* option, const char* failure, const char* streams) {
  emulator::set("STREAMS", streams);
  const auto backend = make_backend();
  Engine engine(*backend, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  GenerateRequest request = make_request(make_prompt(3, 20, 32768), 20);
  request.sampling.ignore_eos = true;
  EXPECT_EQ(collect(*engine.submit(request))[0].finish, FinishReason::length);
  EXPECT_TRUE(emulator::set(option, failure));
  const auto running = engine.submit(request);
  EXPECT_EQ(collect(*running)[0].finish, FinishReason::error);
  try {
    engine.submit(request);
    ADD_FAILURE() << "accepted";
  } catch (const RequestError& error) {
    EXPECT_EQ(error.status, 503);
  }
  emulator::set(option, "");
  return engine.stats().failure;
}

// Each in a process of its own: a lost context stays lost. `streams`: "late" runs a kernel when it is waited
// for, so that is where its fault shows, "eager" at its launch.
void expect_failure(const char* option, const char* failure, const std::string& words,
                    const char* streams = "late") {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to fail";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto run = [&] {
    std::fprintf(stderr, "%s\n", failure_of(option, failure, streams).c_str());
    std::_Exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(0), words);
}

TEST(CudaFailureDeathTest, AKernelThatFaultsIsNamedByTheWaitThatLearnsOfIt) {
  expect_failure(
      "FAIL_RUN", "attention:5",
      "cudaEventSynchronize for a step's results: unspecified launch failure "
      ".cudaErrorLaunchFailure., of this or of earlier work: CUDA_LAUNCH_BLOCKING=1 shows which\n");
}
TEST(CudaFailureDeathTest, ALostDeviceIsNamedByTheCall) {
  expect_failure("FAIL_CALL", "cudaMemcpyAsync:9:cudaErrorUnknown", "cudaMemcpyAsync for .*unknown error");
}
TEST(CudaFailureDeathTest, ALaunchThatIsRefusedNamesTheOperation) {
  expect_failure("FAIL_LAUNCH", "*:1",
                 "kernel launch for embed: too many resources requested for launch "
                 ".cudaErrorLaunchOutOfResources.\n");
}
// A fault that a later launch learns of: gathering rows has it, SiLU is what tells.
void launch_after_a_fault() {
  emulator::set("STREAMS", "late");
  const auto backend = make_backend();
  const ops::DeviceTensor x(*backend, DType::f32, 1, 64, ops::Values(64, 1)), y(*backend, DType::f32, 1, 64),
      half(*backend, DType::bf16, 1, 32), rows(*backend, {0});
  backend->download(nullptr, {});
  emulator::set("FAIL_RUN", "gather:1");
  backend->gather_rows(x.view(), rows.view(), y.view());
  cudaDeviceSynchronize();
  try {
    backend->silu_mul(x.view(), half.view());
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::_Exit(0);
  }
  std::_Exit(1);
}
TEST(CudaFailureDeathTest, AFaultThatALaterLaunchLearnsOfIsNotLaidOnIt) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to fail";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      launch_after_a_fault(), testing::ExitedWithCode(0),
      "kernel launch for silu_mul: unspecified launch failure .cudaErrorLaunchFailure., of this or of "
      "earlier work: CUDA_LAUNCH_BLOCKING=1 shows which\n");
}

// What the advice leads to: steps are launched kernel by kernel, and the one that fails tells.
TEST(CudaFailureDeathTest, WithBlockingLaunchesTheOperationIsNamed) {
  setenv("CUDA_LAUNCH_BLOCKING", "1", 1);
  expect_failure("FAIL_RUN", "attention:40",
                 "kernel launch for attention .decode.: unspecified launch failure", "eager");
  unsetenv("CUDA_LAUNCH_BLOCKING");
}

}  // namespace
}  // namespace tramontane
