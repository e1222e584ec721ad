// Random weight matrices of every format in canonical order, for the tests of linear and embed.
#pragma once

#include <string>
#include <vector>

#include "tests/ops/ops_support.h"

namespace tramontane::ops {

struct WeightFormat {
  std::string name;
  DType dense_dtype = DType::bf16;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
};

// Dense types; affine and codebook 4-bit with group 16 to 128; 8-bit; scales of each type; with and without
// bias.
std::vector<WeightFormat> weight_formats();

// Weights of about 1 / sqrt(k), so that outputs are about as large as inputs.
HostMatrix random_matrix(const WeightFormat& format, int64_t n, int64_t k, uint32_t seed);

// Row n as the arithmetic of act_dtype uses it: matrix.h's definition, dense F16/F32 rounded to BF16 in BF16
// arithmetic.
Values exact_row(const HostMatrix& matrix, int64_t n, DType act_dtype);

}  // namespace tramontane::ops
