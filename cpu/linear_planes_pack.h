// Packing: canonical affine 4-bit matrices into the panels that the integer-plane kernels read
// (linear_planes_tile.h draws them). Stateless.
#pragma once

#include "cpu/linear_planes_tile.h"
#include "cpu/thread_pool.h"
#include "engine/backend/matrix.h"

namespace tramontane {

// Whether these kernels multiply by such a matrix: affine 4-bit codes in groups of 32, 64 or 128, with a bias
// or a code_zero, not both.
bool planes_take(const std::optional<QuantLayout>& quant);

// K of a block of a matrix with so many: blocks are as few as can be, and then as even: what is left of the
// last one would take as much folding as a whole one.
int64_t planes_block_k(int64_t k, int group);

// Everything in one 64-byte aligned Buffer (`codes` of the result), filled by all threads; codes, scales and
// biases are kept as they are. Throws std::runtime_error when there is not enough memory.
Matrix pack_planes(const HostMatrix& matrix, ThreadPool& pool);

// Bytes that pack_planes takes for a matrix like this; its spans are not read.
size_t planes_bytes(const HostMatrix& matrix);

// What the kernels are told about a matrix that pack_planes made. Valid as long as the matrix.
PlanesWeights view_planes(const Matrix& matrix);

// Row n as FP32 [k]: dequantize_row()'s values.
void read_planes_row(const Matrix& matrix, int64_t n, float* out);

}  // namespace tramontane
