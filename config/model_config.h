// ModelConfig: the shape of a Mistral-family model, read from config.json (Hugging Face, MLX), params.json or GGUF metadata.
// Plain immutable data; functions are pure and callable from any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace tramontane {

// The model authors' names (mistral-inference's params.json).
struct ModelConfig {
  std::string architecture;  // "mistral" or "llama"
  int32_t dim = 0, n_layers = 0, n_heads = 0, n_kv_heads = 0, head_dim = 0, hidden_dim = 0, vocab_size = 0, max_position = 0;
  float rope_theta = 10000.0f, norm_eps = 1e-5f;
  std::optional<int32_t> sliding_window;
  bool tied_embeddings = false;   // what the config says; the presence of an output matrix decides
  int32_t bos_id = -1;            // -1: not said
  std::vector<int32_t> eos_ids;   // generation_config.json overrides config.json
};

// What generation_config.json recommends; the request's own values win.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, repetition_penalty;
  std::optional<int32_t> top_k;
};

// Each throws std::runtime_error with one line naming the field, what is expected and what was found:
// unknown architectures, rope scalings, quantisation methods and impossible sizes are refused by name.
ModelConfig model_config_from_hf(const nlohmann::json& config, const nlohmann::json* generation_config);
ModelConfig model_config_from_params(const nlohmann::json& params);
// Keys as in the file ("llama.block_count"), arrays left out.
ModelConfig model_config_from_gguf(const nlohmann::json& metadata);
GenerationDefaults generation_defaults_from_hf(const nlohmann::json& generation_config);

}  // namespace tramontane
