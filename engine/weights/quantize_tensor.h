// One tensor of a checkpoint in its new form: which tensors of the file it becomes, and their bytes.
// Functions are pure; encode_tensor spreads rows over threads of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/dtype.h"
#include "engine/weights/quantize_rules.h"
#include "engine/weights/safetensors_writer.h"

namespace tramontane {

enum class Encoding { dense, fp4, nf4, mlx };

struct TensorPlan {
  std::string name;            // "model.layers.0.mlp.down_proj.weight"
  int64_t rows = 0, cols = 0;  // rows 0: a vector
  DType dtype = DType::bf16;   // what the weights are rounded to before anything else; scales too (MLX)
  Encoding encoding = Encoding::dense;
  int bits = 4, group = 64;
};

// Row `row` of the source as FP32, in the order of the new file. Called from several threads at once.
using RowReader = std::function<void(int64_t row, std::span<float> out)>;
// Rows done so far; called from the calling thread, may throw to give up.
using RowProgress = std::function<void(int64_t rows)>;

// What the file will hold for this tensor: itself and its companions (absmax, scales, ...).
std::vector<TensorSpec> specs_of(const TensorPlan& plan);

// The bytes of those tensors, in the same order. Throws std::runtime_error naming the tensor and row where a
// weight is not finite in the plan's dtype.
std::vector<std::vector<std::byte>> encode_tensor(const TensorPlan& plan, const RowReader& read, int threads,
                                                  const RowProgress& progress);

// Rounds to nearest, ties to even; beyond the range to infinity.
uint16_t float_to_f16(float value);

}  // namespace tramontane
