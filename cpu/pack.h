// Packing: canonical weight matrices into the panels that the vector kernels read (linear_tile.h draws them).
// Stateless.
#pragma once

#include "cpu/linear_tile.h"
#include "cpu/thread_pool.h"
#include "engine/backend/matrix.h"

namespace tramontane {

// Everything in one 64-byte aligned Buffer (`codes` of the result), filled by all threads. Dense F32 and F16
// are rounded once to BF16; quantised codes, scales and biases are kept as they are, except that the scales
// of an FP4 matrix take over the 1/192 of its table, which is then exact in BF16. Throws std::runtime_error
// for an odd k and when there is not enough memory.
Matrix pack_panels(const HostMatrix& matrix, ThreadPool& pool);

// Bytes that pack_panels takes for a matrix like this; its spans are not read.
size_t packed_bytes(const HostMatrix& matrix);

// What the kernels are told about a matrix that pack_panels made. Valid as long as the matrix.
PackedWeights view_packed(const Matrix& matrix);

// Row n as FP32 [k]: within one FP32 rounding of dequantize_row() (dense: of the BF16 values).
void read_packed_row(const Matrix& matrix, int64_t n, float* out);

}  // namespace tramontane
