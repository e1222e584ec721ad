// Linear: how one instruction set packs weight matrices and multiplies by them. Stateless; engine thread only.
#pragma once

#include <string_view>
#include <vector>

#include "cpu/thread_pool.h"
#include "engine/backend/backend.h"

namespace tramontane {

class Linear {
 public:
  virtual ~Linear() = default;
  // Brings a canonical matrix into this kernel's own tile order, using all threads.
  virtual Matrix pack(const HostMatrix& matrix, ThreadPool& pool) const = 0;
  // Bytes of the Matrix that pack() would make.
  virtual size_t packed_bytes(const HostMatrix& matrix) const = 0;
  // y[T,N] (f32) = x[T,K] (bf16; f32 for the scalar kernel in F32 arithmetic) · w^T. Never allocates. Reduction order fixed by w's shape (decision 5).
  virtual void multiply(TensorView x, const Matrix& w, TensorView y, ThreadPool& pool) const = 0;
  // Row n of the packed matrix as FP32 [k]: the embedding lookup. In BF16 arithmetic dense values are the BF16-rounded ones.
  virtual void read_row(const Matrix& w, int64_t n, float* out) const = 0;
};

// One per instruction set; each is entered only after cpu_features.h said that this processor can run it.
const Linear& scalar_linear();          // the specification: plain loops over the canonical order
const Linear& scalar_f32_linear();      // likewise, keeping dense weights as stored (F32 arithmetic)
// BF16 weights by FP32 FMA, quantised ones as integers of 16 bits (linear_tile.h).
const Linear& avx2_linear();            // AVX2 + FMA + F16C
const Linear& avx512_linear();          // AVX-512 F, BW, VL, DQ
// Affine 4-bit weights by integer planes (linear_planes.h), the others by what is named second.
const Linear& avx512vnni_linear();      // AVX-512 VNNI; plain_avx512vnni_linear()
const Linear& avx512bf16_linear();      // AVX-512 VNNI; plain_avx512bf16_linear()
const Linear& amx_linear();             // AVX-512 VNNI up to a few rows, then AMX-INT8 tiles; plain_amx_linear()
const Linear& plain_avx512vnni_linear();  // as avx512_linear(), with VNNI
// All weights in BF16.
const Linear& plain_avx512bf16_linear();  // vdpbf16ps
const Linear& plain_amx_linear();       // AMX-BF16 tiles: prompts faster than amx_linear(), one answer at a time slower

}  // namespace tramontane
