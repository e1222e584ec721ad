// MLX checkpoints: safetensors with Hugging Face's names, dense or quantised by mlx_lm ("affine", 2 to 8
// bits). Loading thread only. Layout: P.weight U32 [out, in*bits/32], each row one little-endian bit stream;
// P.scales, P.biases [out, in/group]; w = scale * q + bias. Verified against mlx 0.32.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

class MlxReader {
 public:
  // `quantization`: the block of that name in config.json. Throws std::runtime_error for a mode, bits or
  // group size that is not supported.
  explicit MlxReader(const nlohmann::json& quantization);

  // A module is quantised when its P.scales exist or P.weight is U32; bits and group size follow from the
  // shapes, as in mlx_lm, and must agree with what the config says about the module by name.
  StoredWeight operator()(TensorTable& table, const std::string& name, int64_t rows, int64_t cols) const;

 private:
  struct Setting {
    bool quantized = true;
    int bits = 0, group = 0;
  };
  std::map<std::string, Setting> overrides_;  // by module: "model.layers.0.mlp.down_proj"
};

}  // namespace tramontane
