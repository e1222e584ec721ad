// Packing: canonical weight matrices into the panels of A tiles that the AMX kernels read (linear_amx_tile.h
// draws them). Stateless.
#pragma once

#include "cpu/linear_amx_tile.h"
#include "cpu/thread_pool.h"
#include "engine/backend/matrix.h"

namespace tramontane {

// Everything in one 64-byte aligned Buffer (`codes` of the result), filled by all threads. Dense F32 and F16
// are rounded once to BF16; quantised codes, scales and biases are kept as they are. Throws
// std::runtime_error for an odd k and when there is not enough memory.
Matrix pack_amx(const HostMatrix& matrix, ThreadPool& pool);

// Bytes that pack_amx takes for a matrix like this; its spans are not read.
size_t amx_bytes(const HostMatrix& matrix);

// What the kernels are told about a matrix that pack_amx made. Valid as long as the matrix.
AmxWeights view_amx(const Matrix& matrix);

// Row n as FP32 [k]: dequantize_row()'s values (dense: the BF16 ones), before the kernels round them.
void read_amx_row(const Matrix& matrix, int64_t n, float* out);

}  // namespace tramontane
