#include "engine/memory_plan.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <stdexcept>

#include "engine/block_manager.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"

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

uint64_t workspace_of(const ModelConfig& config, DType act_dtype, const EngineOptions& options,
                      int32_t max_model_len) {
  const BatchLimits limits = batch_limits_of(options, max_model_len);
  const uint64_t host_logits = uint64_t{sizeof(float)} * limits.max_logits * config.vocab_size;
  return Mistral::workspace_bytes(config, limits.max_tokens, limits.max_logits, max_model_len, act_dtype) +
         2 * Batch::workspace_bytes(limits) + host_logits;  // the batch: once on the host, once on the device
}

// Blocks that are worth having and take no more than half of what is left: the rest is other programs' and
// the page cache's.
int64_t automatic_blocks(const EngineOptions& options, int32_t max_model_len, uint64_t block_bytes,
                         uint64_t left) {
  const int64_t tokens = std::max<int64_t>(
      max_model_len, options.max_sequences * std::min<int64_t>(max_model_len, kTokensPerSequence));
  return std::min<int64_t>((tokens + kBlockTokens - 1) / kBlockTokens,
                           static_cast<int64_t>(left / 2 / block_bytes));
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
                       const EngineOptions& options, uint64_t available_bytes) {
  check_options(options, config);
  const AttentionShape shape{config.n_heads, config.n_kv_heads, config.head_dim, 0};
  const uint64_t block_bytes = KvCache::page_bytes(shape, act_dtype) * static_cast<uint64_t>(config.n_layers);
  MemoryPlan plan;
  plan.available_bytes = available_bytes;
  plan.weight_bytes = weight_bytes;
  plan.max_model_len = options.max_model_len != 0 ? options.max_model_len : config.max_position;
  plan.workspace_bytes = workspace_of(config, act_dtype, options, plan.max_model_len);

  const uint64_t taken = plan.weight_bytes + plan.workspace_bytes;
  const uint64_t left =
      available_bytes == 0 ? UINT64_MAX / 2 : available_bytes - std::min(available_bytes, taken);
  const int64_t blocks = options.kv_cache_bytes != 0
                             ? static_cast<int64_t>(options.kv_cache_bytes / block_bytes)
                             : automatic_blocks(options, plan.max_model_len, block_bytes, left);
  plan.kv_blocks =
      static_cast<int32_t>(std::min<int64_t>(blocks, INT32_MAX / kBlockTokens));  // slots are i32
  plan.kv_bytes = static_cast<uint64_t>(std::max(plan.kv_blocks, 1)) * block_bytes;
  if (available_bytes != 0 && (plan.kv_blocks == 0 || taken + plan.kv_bytes > available_bytes)) {
    throw std::runtime_error(
        "not enough memory: " + plan.to_string() +
        "; lower --kv-cache-bytes, --step-tokens or --max-sequences, or take a smaller model");
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

std::string MemoryPlan::to_string() const {
  std::string text = "weights " + readable(weight_bytes) + ", workspace " + readable(workspace_bytes) +
                     ", KV cache " + readable(kv_bytes) + " (" + std::to_string(kv_blocks) + " blocks, " +
                     std::to_string(int64_t{kv_blocks} * kBlockTokens) + " tokens); " +
                     readable(weight_bytes + workspace_bytes + kv_bytes);
  if (available_bytes != 0) text += " of " + readable(available_bytes) + " available";
  return text + "; at most " + std::to_string(max_model_len) + " tokens a request";
}

namespace {

// The number in a file that holds nothing else (control groups), or nothing: "max", no such file.
bool read_number(const char* path, uint64_t& value) {
  std::ifstream file(path);
  return static_cast<bool>(file >> value);
}

}  // namespace

uint64_t host_available_bytes() {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    uint64_t kib = 0;
    if (key == "MemAvailable:" && meminfo >> kib) available = kib * 1024;
    meminfo.ignore(256, '\n');
  }
  // Control groups, version 2 as a container sees its own (what files are mapped is counted as used there
  // although it can be dropped).
  uint64_t limit = 0, used = 0;
  if (read_number("/sys/fs/cgroup/memory.max", limit) && read_number("/sys/fs/cgroup/memory.current", used)) {
    uint64_t droppable = 0;
    std::ifstream stat("/sys/fs/cgroup/memory.stat");
    std::string key;
    for (uint64_t value = 0; stat >> key >> value;) {
      if (key == "inactive_file" || key == "active_file") droppable += value;
    }
    used -= std::min(used, droppable);
    const uint64_t room = limit - std::min(limit, used);
    available = available == 0 ? room : std::min(available, room);
  }
  return available;
}

}  // namespace tramontane
