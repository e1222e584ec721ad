// Any bytes as a safetensors file, and its tensors as the weights of some names and shapes: read, converted
// and dequantised, or refused with a std::runtime_error. Fuzzing programs only.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "engine/weights/safetensors.h"
#include "tests/fuzz/memory_file.h"

namespace tramontane {

struct FuzzedWeight {
  const char* name;
  int64_t rows, cols;
};

inline const FuzzedWeight kFuzzedWeights[] = {{"lm_head.weight", 5, 32},
                                              {"model.layers.0.mlp.down_proj.weight", 3, 64},
                                              {"model.layers.0.mlp.up_proj.weight", 2, 128},
                                              {"model.layers.0.self_attn.q_proj.weight", 4, 96},
                                              {"model.norm.weight", 0, 32}};

inline void read_fuzzed_weights(std::span<const uint8_t> file, const WeightReader& read) {
  const MemoryFile memory(file.data(), file.size());
  TensorTable table("fuzz");
  for (StoredTensor& tensor : read_safetensors(MappedFile::open(memory.path())).tensors)
    table.add(std::move(tensor));
  for (const FuzzedWeight& weight : kFuzzedWeights) {
    try {
      const HostMatrix matrix = read(table, weight.name, weight.rows, weight.cols).load();
      std::vector<float> row(static_cast<size_t>(matrix.k));
      for (int64_t n = 0; n < matrix.n; ++n) dequantize_row(matrix, n, row);
    } catch (const std::runtime_error&) {
    }
  }
}

}  // namespace tramontane
