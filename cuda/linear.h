// Matrix products with BF16 and quantised weights, and the operations fused with them; backend.h defines
// each. x is BF16.
//
// Weights lie in mma fragment order (pack.h): tiles of 16 outputs x 64 inputs, the weights always the A
// operand of mma.m16n8k16, so that a lane reads its share of a tile as whole 16-byte words. Codes become
// exact BF16 integers in registers (dequant.cuh); scales multiply FP32 sums, once per group. K is cut into 8
// segments by the weight's shape alone; a segment is summed in order, and segments are added in order
// (linear_tile.cuh). Every kernel below, for any number of rows, makes exactly these sums (decision 5):
//   gemv_kernel   1 to 64 rows: a warp is a segment, weights stream through registers
//   gemm_kernel   more rows: a warp walks all segments, weights and x come through shared memory
//   fused_kernel  1 to 8 rows, with the norm before
// and what follows is one of the same few epilogues in all of them (linear_epilogue.cuh).
//
// cuBLAS has its own order of sums, another for other numbers of rows, so it could keep decision 5 neither
// between decoding and prefill nor between two cuts of a prompt. What it gains is prefill on Hopper (wgmma).
// It is therefore an explicit option that gives the decision up, for products of many rows alone, out of a
// row-major copy of the weights made for each: cublas_gemm.h. Without it nothing here calls cuBLAS.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "cuda/launch.h"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

// Bytes that a packed matrix takes in each of its buffers (biases lie with the scales). Those of the
// canonical form, but for padding to whole tiles and, in layouts that no file format has, scales
// widened to FP32. Throws std::runtime_error, naming the layout, for one that no kernel has.
struct PackedBytes {
  size_t codes = 0, scales = 0;
};
PackedBytes packed_bytes(const HostMatrix& matrix);

// Packs the row tiles [first, first + count) of 16 rows each (the last may be padded with zeros) into the
// same share of each buffer: a matrix can be packed and copied piece by piece. Host memory; any thread. There
// are (n + 15) / 16 tiles.
void pack_row_tiles(const HostMatrix& matrix, int64_t first, int64_t count, std::span<std::byte> codes,
                    std::span<std::byte> scales);

// Brings the code of all kernels that a weight of this format may take to the device, those of embed among
// them: no step has to, and what it takes shows before the rest of memory is given away.
void load_linear_kernels(const Matrix& w);

// Below: device memory, queued on `stream`. Rows of x begin at multiples of 16 bytes (dense weights take any,
// slowly; for others std::runtime_error); rows of y anywhere.

// x[T,D] (f32) = table[tokens[t], :]; the values of matrix.h to the bit, dense ones rounded once to BF16
void launch_embed(Stream stream, TensorView tokens, const Matrix& table, TensorView x);
// y[T,N] (f32) = x[T,K] · w[N,K]^T
void launch_linear(Stream stream, TensorView x, const Matrix& w, TensorView y);
// y[T,N] (f32) += x[T,K] · w[N,K]^T: an attention or FFN output added to the residual stream
void launch_linear_add(Stream stream, TensorView x, const Matrix& w, TensorView y);

// Products of the normalised rows h [T,K] (bf16) with what follows, for any number of rows; the bits of the
// separate operations. The caller asks can_fuse_… first: rows of h must begin at multiples of 16 bytes, gates
// must be whole row tiles (F a multiple of 16) and rows of y begin at even elements.
bool can_fuse_rope(TensorView h);
bool can_fuse_silu(TensorView h, const Matrix& w, TensorView y);
// qkv = h · w^T, rotated, k and v stored. qkv [T, qkv_cols] f32 gets q alone: its k and v columns stay as
// they were.
void launch_qkv_rope(Stream stream, TensorView h, const Matrix& w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv);
// y[T,F] (bf16) = silu(gate)·up of h · w^T, w [2F, D]: gate rows, then up rows
void launch_gate_up_silu(Stream stream, TensorView h, const Matrix& w, TensorView y);

// The same with the norm before, for few rows. The caller asks can_fuse_… first: they also need rows of x in
// whole 16-byte words, which as BF16 fit shared memory.
inline constexpr int32_t kFusedRows = 8;
bool can_fuse_norm(TensorView x, TensorView norm, const Matrix& w);
bool can_fuse_gate_up(TensorView x, TensorView norm, const Matrix& w, TensorView y);
// launch_qkv_rope of h = rmsnorm(x)·norm
void launch_norm_qkv_rope(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                          TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                          TensorView rope, KvLayer kv);
// launch_gate_up_silu of h = rmsnorm(x)·norm
void launch_norm_gate_up_silu(Stream stream, TensorView x, TensorView norm, float eps, const Matrix& w,
                              TensorView y);

}  // namespace tramontane::cuda
