// Roles and their names in the layouts that we read. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>

#include "config/model_config.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

// Who named the tensors. Hugging Face keeps q and k rows in half-split RoPE order; the other two in
// interleaved pairs.
enum class Naming { hugging_face, gguf, mistral };

// "model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight", "layers.3.attention.wq.weight".
std::string tensor_name(Naming naming, Role role, int32_t layer);

// The shape a weight must have, [rows, cols]; rows is 0 for the norms, which are vectors.
struct WeightShape {
  int64_t rows = 0, cols = 0;
};
WeightShape expected_shape(Role role, const ModelConfig& config);

// Whether a tensor that no role uses may be there: old exports keep the RoPE frequencies, which follow from
// the config.
bool is_ignorable(const std::string& name);

}  // namespace tramontane
