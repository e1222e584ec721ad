// Products with many rows by cuBLAS: the option --prefill-gemm cublas, which gives up decision 5. cuBLAS has
// its own order of sums, another for other numbers of rows: with it the same request may get other tokens at
// another load, with another cut of its prompt, or after a prefix-cache hit.
//
// A weight in mma order (pack.h) is first unpacked to BF16, row-major, as many outputs at once as the scratch
// holds, and then multiplied (BF16 x BF16 -> FP32). Dense weights stay exact, quantised ones are rounded once
// to BF16, which is what backend.h allows.
//
// libcublas is loaded when the first of these is made, not linked: it and what it needs are 600 MB, and
// loading them takes a quarter of a second and 150 MB, which a server without the option should not pay.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cuda/launch.h"
#include "engine/backend/tensor.h"

namespace tramontane {
struct Matrix;
}

namespace tramontane::cuda {

// Rows from which cuBLAS is worth its unpacking, for every format, by estimate (nothing here was timed). On
// an H100 SXM (3.35 TB/s, 989 TFLOP/s) unpacking one weight reads its code and writes 2 bytes: 2.56 bytes of
// FP4 take 0.76 ps, 4 bytes of BF16 1.19 ps. Taking 70 % of peak for cuBLAS, and for gemm_kernel the 30 %
// (FP4) and 35 % (BF16) of README.md, a row's two operations save 3.8 fs and 2.9 fs a weight. So it pays from
// 198 rows for FP4 and 413 for BF16, of which this is the next multiple of gemm_kernel's 64 rows. A full step
// has more (--step-tokens, 512).
inline constexpr int32_t kCublasRows = 448;

// Mistral 7B's largest matrix that prompts are multiplied by (gate and up, 235 MB as BF16) takes two turns,
// all others one: 14336 outputs in a call fill any GPU.
inline constexpr size_t kCublasScratchBytes = size_t{128} << 20;
// What NVIDIA recommends for Hopper (cublasSetWorkspace); older GPUs take less.
inline constexpr size_t kCublasWorkspaceBytes = size_t{32} << 20;

// rows [T,K] (bf16) = outputs [first, first + T) of w, each value as launch_embed has it, rounded once to
// BF16. Rows lie without gaps; K is a multiple of 8.
void launch_unpack(Stream stream, const Matrix& w, int64_t first, TensorView rows);

// One stream's products. Engine thread only, but for the constructor. Errors of cuBLAS are DeviceErrors
// naming call and operation.
class CublasGemm {
 public:
  // Throws std::runtime_error saying what is missing when libcublas cannot be loaded.
  CublasGemm(Stream stream, int32_t least_rows, size_t scratch_bytes = kCublasScratchBytes);
  ~CublasGemm();

  // Device memory that reserve() takes, whatever the model is: large matrices are computed in parts.
  uint64_t device_bytes() const;
  // Allocates scratch and workspace; before this takes() is false. Later calls do nothing.
  void reserve();

  // Whether the product is one for cuBLAS: enough rows, rows of x and y at multiples of 16 bytes, and scratch
  // for 16 outputs. Anything else is for linear.h.
  bool takes(TensorView x, const Matrix& w, TensorView y) const;
  // y[T,N] (f32) = x[T,K] (bf16) · w[N,K]^T, or y += with `add`. Only what takes() says. Not within a
  // captured step.
  void multiply(TensorView x, const Matrix& w, TensorView y, bool add);

 private:
  struct Library;
  const Stream stream_;
  const int32_t least_rows_;
  const size_t scratch_bytes_;
  std::unique_ptr<Library> library_;
  Buffer scratch_, workspace_;
};

}  // namespace tramontane::cuda
