#include "engine/memory_plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>

#include "engine/block_manager.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"
#include "engine/sampling_batch.h"

namespace tramontane {
namespace {

// Tokens of KV cache wanted for each running sequence when nobody says: a chat's usual length, prompt and
// answer.
constexpr int64_t kTokensPerSequence = 512;
// Rows with logits a step when few sequences may run: the output matrix is read once for all of them.
constexpr int32_t kMinLogitRows = 32;

std::string readable(uint64_t bytes) {
  constexpr std::array<const char*, 4> units = {"KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < units.size(); ++unit) value /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, "%.1f %s", value, units[unit]);
  return text;
}

void check_option(const char* flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  throw std::runtime_error(std::string(flag) + ": expected " + std::to_string(least) + ".." +
                           std::to_string(most) + ", got " + std::to_string(value));
}

void check_options(const EngineOptions& options, const ModelConfig& config) {
  check_option("--max-sequences", options.max_sequences, 1, 4096);
  check_option("--step-tokens", options.step_tokens, 1, 1 << 20);
  check_option("--max-queue", options.max_queue, 1, 1 << 24);
  check_option("--max-queue-tokens", options.max_queue_tokens, 1, int64_t{1} << 48);
  if (options.max_model_len != 0)
    check_option("--max-model-len", options.max_model_len, 1, config.max_position);
}

int32_t wanted_model_len(const ModelConfig& config, const EngineOptions& options) {
  return options.max_model_len != 0 ? options.max_model_len : config.max_position;
}

uint64_t workspace_of(const ModelConfig& config, DType act_dtype, const EngineOptions& options,
                      int32_t max_model_len, bool dedicated) {
  const BatchLimits limits = batch_limits_of(options, max_model_len);
  const uint64_t device =
      Mistral::workspace_bytes(config, limits, max_model_len, act_dtype) + Batch::workspace_bytes(limits);
  if (dedicated) return device;
  // The host's copies of the batch and of the logits are in the same memory.
  return device + Batch::workspace_bytes(limits) +
         uint64_t{sizeof(float)} * limits.max_logits * config.vocab_size;
}

// Of memory that others want too: blocks that are worth having, and no more than half of what is left.
int64_t automatic_blocks(const EngineOptions& options, int32_t max_model_len, uint64_t block_bytes,
                         uint64_t left, bool dedicated) {
  if (dedicated) {  // more than every running sequence at full length would be kept for no one
    const int64_t most = int64_t{options.max_sequences} * BlockManager::blocks_for(max_model_len);
    return std::min(most, static_cast<int64_t>(left / block_bytes));
  }
  const int64_t tokens = std::max<int64_t>(
      max_model_len, options.max_sequences * std::min<int64_t>(max_model_len, kTokensPerSequence));
  return std::min<int64_t>((tokens + kBlockTokens - 1) / kBlockTokens,
                           static_cast<int64_t>(left / 2 / block_bytes));
}

std::string not_enough(const MemoryPlan& plan, std::string_view remedy) {
  std::string text = "not enough memory: " + plan.to_string() + "; ";
  if (!remedy.empty()) text += std::string(remedy) + ", ";
  return text + "lower --kv-cache-bytes, --step-tokens or --max-sequences, or take a smaller model";
}

}  // namespace

int32_t max_logits_of(const EngineOptions& options) {
  return std::max(options.max_sequences, std::min(options.step_tokens, kMinLogitRows));
}

BatchLimits batch_limits_of(const EngineOptions& options, int32_t max_model_len) {
  return {.max_tokens = options.step_tokens,
          .max_sequences = options.max_sequences,
          .max_logits = max_logits_of(options),
          .max_blocks = BlockManager::blocks_for(max_model_len)};
}

MemoryPlan plan_memory(const ModelConfig& config, uint64_t weight_bytes, DType act_dtype,
                       const EngineOptions& options, const MemoryBudget& budget, const StepMemory& step) {
  check_options(options, config);
  const AttentionShape shape{config.n_heads, config.n_kv_heads, config.head_dim, 0};
  const uint64_t block_bytes = KvCache::page_bytes(shape, act_dtype) * static_cast<uint64_t>(config.n_layers);
  MemoryPlan plan;
  plan.available_bytes = budget.bytes;
  plan.weight_bytes = weight_bytes;
  plan.max_model_len = wanted_model_len(config, options);
  plan.workspace_bytes =
      workspace_of(config, act_dtype, options, plan.max_model_len, budget.dedicated) + step.scratch;
  plan.graph_bytes = step.graphs;

  const uint64_t taken = plan.weight_bytes + plan.workspace_bytes + plan.graph_bytes;
  const uint64_t left = budget.bytes == 0 ? UINT64_MAX / 2 : budget.bytes - std::min(budget.bytes, taken);
  const int64_t blocks =
      options.kv_cache_bytes != 0
          ? static_cast<int64_t>(options.kv_cache_bytes / block_bytes)
          : automatic_blocks(options, plan.max_model_len, block_bytes, left, budget.dedicated);
  plan.kv_blocks =
      static_cast<int32_t>(std::min<int64_t>(blocks, INT32_MAX / kBlockTokens));  // slots are i32
  plan.kv_bytes = static_cast<uint64_t>(std::max(plan.kv_blocks, 1)) * block_bytes;
  if (budget.bytes != 0 && (plan.kv_blocks == 0 || taken + plan.kv_bytes > budget.bytes)) {
    throw std::runtime_error(not_enough(plan, budget.remedy));
  }
  if (plan.kv_blocks == 0) {
    throw std::runtime_error("--kv-cache-bytes: expected at least " + std::to_string(block_bytes) +
                             " (one block), got " + std::to_string(options.kv_cache_bytes));
  }
  const int32_t cached_tokens = plan.kv_blocks * kBlockTokens;
  if (options.max_model_len > cached_tokens) {
    throw std::runtime_error("--max-model-len is " + std::to_string(options.max_model_len) +
                             " tokens, the KV cache holds " + std::to_string(cached_tokens) + " (" +
                             readable(plan.kv_bytes) + "): lower --max-model-len or raise --kv-cache-bytes");
  }
  plan.max_model_len = std::min(plan.max_model_len, cached_tokens);
  return plan;
}

MemoryPlan plan_memory(const Backend& backend, const Checkpoint& checkpoint, const EngineOptions& options) {
  const ModelConfig& config = checkpoint.config();
  check_options(options, config);
  const AttentionShape shape{config.n_heads, config.n_kv_heads, config.head_dim, 0};
  const StepLimits limits{.max_tokens = options.step_tokens,
                          .max_sequences = options.max_sequences,
                          .max_kv = wanted_model_len(config, options)};
  StepMemory step = backend.step_memory(limits, shape);
  if (backend.samples_on_device()) {
    step.scratch +=
        SamplingBatch::workspace_bytes(batch_limits_of(options, limits.max_kv), config.vocab_size);
  }
  return plan_memory(config, Mistral::weight_bytes(backend, checkpoint), backend.act_dtype(), options,
                     backend.memory(), step);
}

std::string MemoryPlan::to_string() const {
  std::string text = "weights " + readable(weight_bytes) + ", workspace " + readable(workspace_bytes);
  if (graph_bytes != 0) text += ", graphs " + readable(graph_bytes);
  text += ", KV cache " + readable(kv_bytes) + " (" + std::to_string(kv_blocks) + " blocks, " +
          std::to_string(int64_t{kv_blocks} * kBlockTokens) + " tokens); " +
          readable(weight_bytes + workspace_bytes + graph_bytes + kv_bytes);
  if (available_bytes != 0) text += " of " + readable(available_bytes) + " available";
  return text + "; at most " + std::to_string(max_model_len) + " tokens a request";
}

}  // namespace tramontane
