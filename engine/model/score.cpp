#include "engine/model/score.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "engine/batch.h"
#include "engine/model/kv_cache.h"
#include "engine/model/mistral.h"

namespace tramontane {
namespace {

void check_ids(std::span<const int32_t> ids, const ModelConfig& config) {
  if (ids.empty()) throw std::runtime_error("score: expected at least one token id, got none");
  if (ids.size() > static_cast<size_t>(config.max_position)) {
    throw std::runtime_error("score: expected at most " + std::to_string(config.max_position) +
                             " token ids (the model's maximum), got " + std::to_string(ids.size()));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < config.vocab_size) continue;
    throw std::runtime_error("score: id " + std::to_string(i) + " is " + std::to_string(ids[i]) +
                             ", expected 0.." + std::to_string(config.vocab_size - 1));
  }
}

}  // namespace

void score_all(
    Backend& backend, const Checkpoint& checkpoint, std::span<const std::vector<int32_t>> texts,
    int32_t chunk_tokens,
    const std::function<void(size_t text, int32_t first_row, std::span<const float> logits)>& sink) {
  const ModelConfig& config = checkpoint.config();
  int32_t longest = 0;
  for (const auto& ids : texts) {
    check_ids(ids, config);
    longest = std::max(longest, static_cast<int32_t>(ids.size()));
  }
  if (longest == 0) return;
  const int32_t rows = std::clamp(chunk_tokens, 1, longest);
  const int32_t n_blocks = (longest + kBlockTokens - 1) / kBlockTokens;
  const BatchLimits limits{
      .max_tokens = rows, .max_sequences = 1, .max_logits = rows, .max_blocks = n_blocks};
  Mistral model(backend, checkpoint, limits, longest);
  KvCache cache(backend, model.attention_shape(), config.n_layers, n_blocks);
  Batch batch(backend, limits);
  std::vector<int32_t> blocks(static_cast<size_t>(n_blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::vector<float> logits(static_cast<size_t>(rows) * config.vocab_size);

  for (size_t text = 0; text < texts.size(); ++text) {
    const std::span<const int32_t> ids = texts[text];
    for (int32_t first = 0; first < static_cast<int32_t>(ids.size()); first += rows) {
      const auto chunk = ids.subspan(first, std::min<size_t>(rows, ids.size() - first));
      batch.clear();
      batch.add(chunk, first, blocks, static_cast<int32_t>(chunk.size()));
      const TensorView result = model.forward(batch.upload(), cache);
      const std::span<float> out(logits.data(), chunk.size() * config.vocab_size);
      backend.download(result.data, std::as_writable_bytes(out));
      sink(text, first, out);
    }
  }
}

void score(Backend& backend, const Checkpoint& checkpoint, std::span<const int32_t> ids, int32_t chunk_tokens,
           const LogitsSink& sink) {
  const std::vector<std::vector<int32_t>> texts = {{ids.begin(), ids.end()}};
  score_all(backend, checkpoint, texts, chunk_tokens,
            [&](size_t, int32_t first_row, std::span<const float> logits) { sink(first_row, logits); });
}

}  // namespace tramontane
