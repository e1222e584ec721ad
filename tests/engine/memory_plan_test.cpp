#include "engine/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/backend/host_memory.h"

namespace tramontane {
namespace {

using testing::HasSubstr;
using testing::Not;

// Mistral 7B: a token of KV cache is 2 * 8 * 128 * 2 bytes * 32 layers = 128 KiB, a block 2 MiB.
ModelConfig mistral_7b() {
  ModelConfig config;
  config.dim = 4096;
  config.n_layers = 32;
  config.n_heads = 32;
  config.n_kv_heads = 8;
  config.head_dim = 128;
  config.hidden_dim = 14336;
  config.vocab_size = 32768;
  config.max_position = 32768;
  return config;
}
constexpr uint64_t kGiB = uint64_t{1} << 30;

std::string refusal(const EngineOptions& options, uint64_t available) {
  try {
    plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, options, {.bytes = available});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(MemoryPlan, TakesWhatIsWantedWhenThereIsRoom) {
  const MemoryPlan plan = plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, {.bytes = 256 * kGiB});
  EXPECT_EQ(plan.kv_blocks, 2048);  // 64 sequences of 512 tokens, and at least one of 32768
  EXPECT_EQ(plan.kv_bytes, 4 * kGiB);
  EXPECT_EQ(plan.max_model_len, 32768);
}

TEST(MemoryPlan, TakesHalfOfALittleRoomAndShortensRequests) {
  const MemoryPlan plan = plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, {.bytes = 16 * kGiB});
  EXPECT_LT(plan.kv_bytes, 1 * kGiB);
  EXPECT_GT(plan.kv_bytes, kGiB / 2);
  EXPECT_EQ(plan.max_model_len, plan.kv_blocks * 16);
}

TEST(MemoryPlan, RefusesWhatDoesNotFitAndNamesTheOption) {
  EXPECT_THAT(refusal({}, 14 * kGiB), HasSubstr("not enough memory"));
  EXPECT_THAT(refusal({}, 14 * kGiB), Not(HasSubstr("raise")));
  EXPECT_THAT(refusal({.kv_cache_bytes = 8 * kGiB}, 16 * kGiB), HasSubstr("--kv-cache-bytes"));
  EXPECT_THAT(refusal({.kv_cache_bytes = 1000}, 0), HasSubstr("--kv-cache-bytes"));
  EXPECT_THAT(refusal({.max_model_len = 32768, .kv_cache_bytes = 1 * kGiB}, 256 * kGiB),
              HasSubstr("--max-model-len"));
  EXPECT_THAT(refusal({.max_model_len = 40000}, 256 * kGiB), HasSubstr("--max-model-len"));
  EXPECT_THAT(refusal({.max_sequences = 0}, 256 * kGiB), HasSubstr("--max-sequences"));
  EXPECT_THAT(refusal({.step_tokens = 0}, 256 * kGiB), HasSubstr("--step-tokens"));
}

// A GPU's memory: all that is left goes to keys and values, the backend's own needs are counted, the host's
// copies are not.
TEST(MemoryPlan, TakesAllOfMemoryThatNobodyElseWants) {
  const MemoryBudget budget{.bytes = 40 * kGiB, .dedicated = true, .remedy = "raise --gpu-memory"};
  const MemoryPlan bare = plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, budget);
  EXPECT_GT(bare.weight_bytes + bare.workspace_bytes + bare.kv_bytes + 2 * (kGiB >> 10), 40 * kGiB);
  EXPECT_LE(bare.weight_bytes + bare.workspace_bytes + bare.kv_bytes, 40 * kGiB);
  const MemoryPlan plan = plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, budget,
                                      {.scratch = 100 << 20, .graphs = 60 << 20});
  EXPECT_EQ(plan.kv_blocks, bare.kv_blocks - 80);  // blocks of 2 MiB
  EXPECT_THAT(plan.to_string(), HasSubstr("graphs 60.0 MiB"));
  const MemoryPlan shared = plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, {.bytes = 40 * kGiB});
  EXPECT_GT(shared.workspace_bytes, bare.workspace_bytes);
  for (const char* remedy : {"raise --gpu-memory", "end other programs on this GPU"}) {
    try {
      plan_memory(mistral_7b(), 14 * kGiB, DType::bf16, {}, {.bytes = 14 * kGiB, .remedy = remedy});
      ADD_FAILURE() << "accepted";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), HasSubstr(std::string("; ") + remedy + ", lower --kv-cache-bytes"));
    }
  }
}

TEST(MemoryPlan, ReadsTheHostsMemory) {
  EXPECT_GT(host_available_bytes(), uint64_t{1} << 20);
}

}  // namespace
}  // namespace tramontane
