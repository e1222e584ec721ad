// The config.json that goes with a quantised checkpoint. Pure functions.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "config/model_config.h"
#include "engine/weights/quantize.h"

namespace tramontane {

// What transformers and mlx_lm need to know of a model whose source has no config.json (GGUF, params.json).
// `tied`: there is no lm_head.
nlohmann::ordered_json make_hf_config(const ModelConfig& config, bool tied);

// The file's text: `config` and what the target's library adds to it. MLX: keys sorted and spelt as mlx_lm
// writes them; `generation_config` (or null) may override eos_token_id there.
std::string quantized_config_text(nlohmann::ordered_json config,
                                  const nlohmann::ordered_json& generation_config,
                                  const QuantizeOptions& options, int bits);

}  // namespace tramontane
