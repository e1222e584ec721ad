// Matrix products with BF16 and quantised weights, and the operations fused with them; backend.h defines
// each. x is BF16.
//
// Weights lie in mma fragment order: tiles of 16 outputs x 64 inputs, the weights always the A operand of
// mma.m16n8k16, so that a lane reads its share of a tile as whole 16-byte words. K is cut into segments by
// the weight's shape alone; a segment is summed in order, and segments are added in order. Every kernel
// below, for any number of rows, makes exactly these sums (decision 5).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/launch.h"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

// Bytes that a packed matrix takes in each of its buffers. Throws std::runtime_error for a layout that cuda/
// does not have.
struct PackedBytes {
  size_t codes = 0, scales = 0, biases = 0;
};
PackedBytes packed_bytes(const HostMatrix& matrix);

// Packs the row tiles [first, first + count) of 16 rows each (the last may be padded with zeros) into the
// same share of each buffer: a matrix can be packed and copied piece by piece. Host memory; any thread. There
// are (n + 15) / 16 tiles.
void pack_row_tiles(const HostMatrix& matrix, int64_t first, int64_t count, std::span<std::byte> codes,
                    std::span<std::byte> scales, std::span<std::byte> biases);

// x[T,D] (f32) = table[tokens[t], :]
void launch_embed(Stream stream, TensorView tokens, const Matrix& table, TensorView x);
// y[T,N] (f32) = x[T,K] · w[N,K]^T
void launch_linear(Stream stream, TensorView x, const Matrix& w, TensorView y);
// y[T,N] (f32) += x[T,K] · w[N,K]^T: an attention or FFN output added to the residual stream
void launch_linear_add(Stream stream, TensorView x, const Matrix& w, TensorView y);

// Rows up to which the fused launches below exist; more rows take the separate operations, with the same
// bits. The caller asks can_fuse_… first: they also need rows of whole 16-byte words that fit shared memory,
// and gates of whole row tiles.
inline constexpr int32_t kFusedRows = 8;
bool can_fuse_norm(TensorView x, TensorView norm, const Matrix& w);
bool can_fuse_gate_up(TensorView x, TensorView norm, const Matrix& w, TensorView y);
// qkv = rmsnorm(x)·norm · w^T, rotated, k and v stored. qkv [T, qkv_cols] f32 keeps q (k and v columns are
// scratch).
void launch_norm_qkv_rope(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                          TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                          TensorView rope, KvLayer kv);
// y[T,F] (bf16) = silu(gate)·up of rmsnorm(x)·norm · w^T, w [2F, D]: gate rows, then up rows
void launch_norm_gate_up_silu(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                              TensorView y);

}  // namespace tramontane::cuda
