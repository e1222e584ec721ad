// Steps on the CUDA backend: captured and replayed, how many launches they take, and what they never do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cuda_runtime_api.h>

#include <functional>
#include <numeric>
#include <span>

#include "tests/cuda/backend_support.h"
#include "tests/cuda_emulator/control.h"
#include "tests/engine/engine_support.h"
#include "tests/ops/ops_support.h"

namespace tramontane {
namespace {

const CudaBackendInfo& info(const Backend& backend) {
  return dynamic_cast<const CudaBackendInfo&>(backend);
}

// --- captured steps

std::vector<AnswerRecord> answer_some(Engine& engine) {
  std::vector<std::shared_ptr<Generation>> generations;
  for (int32_t i = 0; i < 5; ++i) {
    GenerateRequest request =
        make_request(make_prompt(static_cast<uint64_t>(i), 4 + 9 * i, 32768), 6 + 4 * i);
    request.sampling.ignore_eos = true;
    request.sampling.logprobs = 3;
    generations.push_back(engine.submit(std::move(request)));
  }
  std::vector<AnswerRecord> answers;
  for (const auto& generation : generations) answers.push_back(collect(*generation)[0]);
  return answers;
}

TEST(CudaGraphs, ReplaysGiveTheSameBitsAsLaunches) {
  const auto eager = make_backend(false), captured = make_backend();
  Engine plain(*eager, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  const std::vector<AnswerRecord> expected = answer_some(plain);
  plain.stop();
  EXPECT_EQ(info(*eager).n_graphs(), 0);
  Engine engine(*captured, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  EXPECT_TRUE(answer_some(engine) == expected);
  EXPECT_TRUE(answer_some(engine) == expected) << "now from the prefix cache";
  engine.stop();
  EXPECT_GE(info(*captured).n_graphs(), 2) << "batches of several sizes";
  EXPECT_GT(info(*captured).n_replays(), 10u);
}

// A second model on the same backend has other buffers, perhaps at the addresses of the first one's.
TEST(CudaGraphs, AreForgottenWithTheirBuffers) {
  const auto backend = make_backend();
  std::vector<AnswerRecord> expected;
  for (int i = 0; i < 2; ++i) {
    Engine engine(*backend, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
    const std::vector<AnswerRecord> answers = answer_some(engine);
    if (i == 0) expected = answers;
    EXPECT_TRUE(answers == expected);
  }
}

// A decode step of two sequences: one key.
BatchView two_decodes(const ops::DeviceTensor& rows, const ops::DeviceTensor& table) {
  BatchView batch;
  batch.tokens = rows.view();
  batch.block_table = table.view();
  batch.n_tokens = batch.n_seqs = batch.n_logits = 2;
  batch.max_q = batch.max_kv = 1;
  return batch;
}

// The same key again, with a buffer in the place of one that is gone: nothing of the old graph may run.
TEST(CudaGraphs, AKeyMayComeAgainWithNewBuffers) {
  const auto backend = make_backend();
  const ops::DeviceTensor y(*backend, DType::f32, 2, 64);
  const ops::DeviceTensor rows(*backend, {0, 1}), table(*backend, {0, 0});
  const BatchView batch = two_decodes(rows, table);
  for (const float value : {1.0f, 2.0f, 3.0f}) {
    const ops::DeviceTensor x(*backend, DType::f32, 2, 64, ops::Values(2 * 64, value));
    for (int step = 0; step < 3; ++step) {
      backend->begin_step(batch);
      backend->gather_rows(x.view(), rows.view(), y.view());
      backend->end_step();
    }
    EXPECT_EQ(y.download(), ops::Values(2 * 64, value));
  }
  EXPECT_GT(info(*backend).n_replays(), 0u);
}

// Decode steps of these many rows, each size twice: seen, then captured.
void decode_in_sizes(Backend& backend, std::span<const int32_t> sizes) {
  const ops::DeviceTensor x(backend, DType::f32, 1, 64), y(backend, DType::f32, 1, 64);
  const ops::DeviceTensor rows(backend, {0}), table(backend, {0});
  for (const int32_t size : sizes) {
    BatchView batch;
    batch.tokens = rows.view();
    batch.block_table = table.view();
    batch.n_tokens = batch.n_seqs = batch.n_logits = size;
    batch.max_q = batch.max_kv = 1;
    for (int step = 0; step < 2; ++step) {
      backend.begin_step(batch);
      backend.gather_rows(x.view(), rows.view(), y.view());
      backend.end_step();
    }
  }
}

// 10 sequences decode in 5 sizes (1, 2, 4, 8 and all 10) and, up to 2048 tokens, with 2 reaches.
TEST(CudaGraphs, AreNoMoreThanThePlanCounts) {
  const auto backend = make_backend();
  const StepLimits limits{.max_tokens = 32, .max_sequences = 10, .max_kv = 512};
  const AttentionShape shape{.n_heads = 4, .n_kv_heads = 1, .head_dim = 16, .sliding_window = 0};
  EXPECT_EQ(backend->step_memory(limits, shape).graphs, 5u << 20);
  EXPECT_EQ(backend->step_memory({32, 10, 2048}, shape).graphs, 10u << 20);
  EXPECT_EQ(backend->step_memory({32, 1, 512}, shape).graphs, 1u << 20);
  EXPECT_EQ(backend->step_memory({32, 8, 512}, shape).graphs, 4u << 20);
  EXPECT_EQ(backend->step_memory({512, 300, 513}, shape).graphs, 70u << 20);
  backend->reserve(limits, shape);
  decode_in_sizes(*backend, std::vector<int32_t>{1, 2, 4, 8, 10, 3, 5});
  EXPECT_EQ(info(*backend).n_graphs(), 5) << "sizes that nobody planned run eagerly";
}

TEST(CudaGraphs, ThatTakeMoreThanPlannedAreToldOfOnce) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "what a graph takes is the device's";
  const std::vector<int32_t> sizes = {1, 2, 4, 8, 16, 24, 32, 40, 48, 56};
  for (const bool too_much : {false, true}) {
    emulator::set("GRAPH_MEMORY", too_much ? "1200000" : "1000000");
    testing::internal::CaptureStdout();
    {
      const auto backend = make_backend();
      decode_in_sizes(*backend, sizes);
      EXPECT_EQ(info(*backend).n_graphs(), 10);
    }
    const std::string told = testing::internal::GetCapturedStdout();
    const std::string wanted =
        "captured steps take 1171 KiB of GPU memory each, the memory plan has 1024 KiB";
    EXPECT_EQ(told.find(wanted) != told.npos, too_much) << told;
    EXPECT_EQ(told.find(wanted), told.rfind(wanted)) << told;
  }
  emulator::set("GRAPH_MEMORY", "0");
}

// Graphs' memory is an estimate: a step whose graph finds none is computed all the same, then and ever after.
TEST(CudaGraphs, ThatFindNoMemoryAreDoneWithout) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to fail";
  for (const char* call : {"cudaGraphInstantiate", "cudaGraphLaunch"}) {
    const auto backend = make_backend();
    testing::internal::CaptureStdout();
    for (int32_t size = 1; size <= 2; ++size) {
      const std::string failure = std::string(call) + ":1:cudaErrorMemoryAllocation";
      ASSERT_TRUE(emulator::set("FAIL_CALL", failure.c_str()));
      const uint64_t before = emulator::launches();
      decode_in_sizes(*backend, std::vector<int32_t>{size, size, size});
      backend->download(nullptr, {});
      EXPECT_EQ(emulator::launches() - before, 6u) << call << ": every step ran";
      EXPECT_EQ(info(*backend).n_graphs(), 0) << call;
    }
    const std::string told = testing::internal::GetCapturedStdout(), wanted = "no GPU memory for a captured";
    EXPECT_NE(told.find(wanted), told.npos) << told;
    EXPECT_EQ(told.find(wanted), told.rfind(wanted)) << told;
    decode_in_sizes(*backend, std::vector<int32_t>{4, 4});
    EXPECT_EQ(info(*backend).n_graphs(), 1) << "others have theirs";
    EXPECT_GT(info(*backend).n_replays(), 0u);
  }
}

TEST(CudaGraphs, ThatFindNoMemoryChangeNoAnswer) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to fail";
  const auto backend = make_backend();
  Engine engine(*backend, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
  ASSERT_TRUE(emulator::set("FAIL_CALL", "cudaGraphInstantiate:1:cudaErrorMemoryAllocation"));
  const std::vector<AnswerRecord> answers = answer_some(engine);
  EXPECT_TRUE(answer_some(engine) == answers);
  engine.stop();
  EXPECT_GT(info(*backend).n_replays(), 0u);
}

TEST(CudaGraphs, ThatCannotBeMadeForAnotherReasonAreAnError) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU cannot be told to fail";
  const auto backend = make_backend();
  ASSERT_TRUE(emulator::set("FAIL_CALL", "cudaGraphInstantiate:1:cudaErrorNotSupported"));
  try {
    decode_in_sizes(*backend, std::vector<int32_t>{1, 1});
    FAIL() << "made do without";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(),
                testing::HasSubstr("cudaGraphInstantiate for a decode step: operation not supported (cuda"));
  }
}

// Three steps under one key: seen, captured, replayed. The third does something else.
void replay_another_step() {
  const auto backend = make_backend();
  const ops::DeviceTensor x(*backend, DType::f32, 2, 64), y(*backend, DType::f32, 2, 64);
  const ops::DeviceTensor rows(*backend, {0, 1}), table(*backend, {0, 0});
  const BatchView batch = two_decodes(rows, table);
  for (const auto& [from, to] : {std::pair{&x, &y}, {&x, &y}, {&y, &x}}) {
    backend->begin_step(batch);
    backend->gather_rows(from->view(), rows.view(), to->view());
    backend->end_step();
  }
}

TEST(CudaGraphsDeathTest, ADifferentStepUnderTheSameKeyIsCaught) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(replay_another_step(), "operation 0 of a replayed step is not the one that was captured");
}

// --- launches

Matrix ones(Backend& backend, int64_t n, int64_t k) {
  const std::vector<uint16_t> values(static_cast<size_t>(n * k), float_to_bf16(1.0f));
  HostMatrix host;
  host.n = n, host.k = k;
  host.codes = std::as_bytes(std::span(values));
  return backend.upload_matrix(host, "w");
}

// What one layer of a step launches that decodes a token of each of `rows` sequences; gates and ups of
// `hidden` rows each.
uint64_t launches_of_a_layer(int32_t rows, int64_t hidden = 96, const CudaOptions& options = {}) {
  constexpr int64_t kDim = 64;
  constexpr AttentionShape kShape{.n_heads = 2, .n_kv_heads = 1, .head_dim = 32, .sliding_window = 0};
  const auto backend = make_cuda_backend(options);
  backend->reserve({.max_tokens = rows, .max_sequences = rows, .max_kv = 1}, kShape);
  const auto tensor = [&](DType dtype, int64_t cols) {
    return ops::DeviceTensor(*backend, dtype, rows, cols, ops::Values(static_cast<size_t>(rows * cols), 1));
  };
  const ops::DeviceTensor x = tensor(DType::f32, kDim), h = tensor(DType::bf16, kDim),
                          qkv = tensor(DType::f32, kShape.qkv_cols()),
                          attended = tensor(DType::bf16, kShape.q_cols()),
                          gate_up = tensor(DType::f32, 2 * hidden), y = tensor(DType::bf16, hidden),
                          norm(*backend, DType::f32, 1, kDim), rope(*backend, DType::f32, 1, kShape.head_dim);
  const Buffer pages = backend->allocate(static_cast<size_t>(rows) * 2 * kBlockTokens * 32 * 2, "pages");
  const KvLayer kv{pages.data(), rows};
  std::vector<int32_t> numbers(static_cast<size_t>(rows) + 1), slots;
  std::iota(numbers.begin(), numbers.end(), 0);
  for (int32_t r = 0; r < rows; ++r) slots.push_back(r * kBlockTokens);
  const std::vector<int32_t> every(slots.size(), 1);
  const ops::DeviceTensor starts(*backend, numbers), d_slots(*backend, slots), lengths(*backend, every),
      positions(*backend, std::vector<int32_t>(slots.size(), 0));
  BatchView batch;
  batch.positions = positions.view(), batch.slots = d_slots.view(), batch.kv_lens = lengths.view();
  batch.q_starts = starts.view();
  batch.block_table = {starts.view().data, DType::i32, rows, 1, 1};  // a page each
  batch.n_tokens = batch.n_seqs = batch.n_logits = rows;
  batch.max_q = batch.max_kv = 1;
  Matrix wqkv[] = {ones(*backend, kShape.qkv_cols(), kDim)}, w13[] = {ones(*backend, 2 * hidden, kDim)};
  const Matrix wo = ones(*backend, kDim, kShape.q_cols()), w2 = ones(*backend, kDim, hidden);

  backend->download(nullptr, {});
  const uint64_t before = emulator::launches();
  backend->norm_qkv_rope(x.view(), {}, norm.view(), 1, h.view(), wqkv, qkv.view(), batch, kShape, rope.view(),
                         kv);
  backend->attention(qkv.view(), batch, kShape, kv, attended.view());
  EXPECT_TRUE(backend->linear_add(attended.view(), wo, x.view(), {}).empty());
  backend->norm_gate_up_silu(x.view(), {}, norm.view(), 1, h.view(), w13, gate_up.view(), y.view());
  EXPECT_TRUE(backend->linear_add(y.view(), w2, x.view(), {}).empty());
  backend->download(nullptr, {});
  return emulator::launches() - before;
}

TEST(CudaLaunches, OfALayerAreFiveForFewRowsAndSevenForMore) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU does not count launches";
  for (const int32_t rows : {1, 8}) EXPECT_EQ(launches_of_a_layer(rows), 5u) << rows << " rows";
  for (const int32_t rows : {9, 64, 65}) EXPECT_EQ(launches_of_a_layer(rows), 7u) << rows << " rows";
}

// 104 gates are six and a half row tiles: SiLU is an operation of its own.
TEST(CudaLaunches, OfGatesThatAreNoWholeTilesAreMore) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU does not count launches";
  EXPECT_EQ(launches_of_a_layer(8, 104), 7u);
  EXPECT_EQ(launches_of_a_layer(9, 104), 8u);
}

// Four products are cuBLAS's and the unpacking before each ours; two norms, RoPE, attention and SiLU are
// apart.
TEST(CudaLaunches, OfALayerWithCublasAreSeparate) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU does not count launches";
  EXPECT_EQ(launches_of_a_layer(16, 96, {.cublas_rows = 16}), 9u);
  EXPECT_EQ(launches_of_a_layer(15, 96, {.cublas_rows = 16}), 7u);
}

// --- what a step must not do

// A prompt, then decode steps: seen, captured, replayed.
void answer_one(Engine& engine, uint64_t seed, int32_t prompt) {
  GenerateRequest request = make_request(make_prompt(seed, prompt, 32768), 4);
  request.sampling.ignore_eos = true;
  ASSERT_EQ(collect(*engine.submit(request))[0].finish, FinishReason::length);
}

// Each call is armed to fail while a request is answered that a warm engine has seen the like of. That it
// then fails for the test says that nobody had made it.
TEST(CudaSteps, AllocateNothingAndWaitForNothingButTheirIds) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "a real GPU does not tell who calls it";
  const auto backend = make_backend();
  Engine engine(*backend, tiny_checkpoint(), {.step_tokens = 8, .kv_cache_bytes = kPlenty});
  for (uint64_t warm = 0; warm < 2; ++warm) answer_one(engine, warm, 12);  // two chunks
  void* p = nullptr;
  int number = 0;
  size_t free = 0, total = 0;
  cudaEvent_t event = nullptr;
  cudaStream_t stream = nullptr;
  cudaGraphExec_t graph = nullptr;
  cudaFuncAttributes attributes{};
  const std::vector<std::pair<const char*, std::function<cudaError_t()>>> calls = {
      {"cudaMalloc", [&] { return cudaMalloc(&p, 64); }},
      {"cudaFree", [&] { return cudaFree(nullptr); }},
      {"cudaMallocHost", [&] { return cudaMallocHost(&p, 64); }},
      {"cudaFreeHost", [&] { return cudaFreeHost(nullptr); }},
      {"cudaMemGetInfo", [&] { return cudaMemGetInfo(&free, &total); }},
      {"cudaMemcpy", [&] { return cudaMemcpy(&number, p, 0, cudaMemcpyDeviceToHost); }},
      {"cudaStreamSynchronize", [&] { return cudaStreamSynchronize(nullptr); }},
      {"cudaDeviceSynchronize", [&] { return cudaDeviceSynchronize(); }},
      {"cudaEventCreateWithFlags", [&] { return cudaEventCreateWithFlags(&event, 0); }},
      {"cudaStreamBeginCapture", [&] { return cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal); }},
      {"cudaGraphInstantiate", [&] { return cudaGraphInstantiate(&graph, nullptr, 0); }},
      {"cudaFuncGetAttributes", [&] { return cudaFuncGetAttributes(&attributes, nullptr); }},
      {"cudaFuncSetAttribute",
       [&] { return cudaFuncSetAttribute(nullptr, cudaFuncAttributeMaxDynamicSharedMemorySize, 0); }},
      {"cudaDeviceGetAttribute", [&] { return cudaDeviceGetAttribute(&number, cudaDevAttrWarpSize, 0); }}};
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& [name, call] = calls[i];
    SCOPED_TRACE(name);
    ASSERT_TRUE(emulator::set("FAIL_CALL", (std::string(name) + ":1:cudaErrorNotSupported").c_str()));
    answer_one(engine, 2 + i, 12);
    EXPECT_EQ(call(), cudaErrorNotSupported) << "a step made the call";
    cudaGetLastError();
  }
  EXPECT_GT(info(*backend).n_replays(), 0u);
}

// Loading their code takes time and memory, which steps were not planned to take.
TEST(CudaSteps, LoadNoKernel) {
  if (!emulator::is_emulated()) GTEST_SKIP() << "only the emulator counts";
  for (const bool graphs : {false, true}) {
    const auto backend = make_backend(graphs);
    Engine engine(*backend, tiny_checkpoint(), {.kv_cache_bytes = kPlenty});
    answer_one(engine, 1, 70);
    for (const int32_t rows : {1, 12, 20, 40}) {  // every size of gemv_kernel
      GenerateRequest request = make_request(make_prompt(7, rows, 32768), 2);
      request.sampling.temperature = 1.0f;
      request.sampling.frequency_penalty = 0.5f;
      collect(*engine.submit(request));
    }
  }
  EXPECT_EQ(emulator::late_loads(), 0u);
}

}  // namespace
}  // namespace tramontane
