// The parts of linear.h's launchers, one per kernel file: each looks its kernel up in its own closed table,
// by format and epilogue. CUDA sources only.
#pragma once

#include "cuda/launch.h"
#include "cuda/linear_epilogue.cuh"
#include "cuda/linear_segment.cuh"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

// Whether every row begins at a multiple of so many elements.
inline bool words_of(const TensorView& view, int64_t elements) {
  const auto size = static_cast<int64_t>(size_of(view.dtype));
  return reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(elements * size) == 0 &&
         (view.rows == 1 || view.row_stride % elements == 0);
}
// Whether kernels can read rows of x 16 bytes at a time.
inline bool whole_words(const TensorView& x) {
  return words_of(x, 8) && x.cols % 8 == 0;
}
// Whether SiLU can follow in the product's kernel: gates and ups of whole row tiles, pairs of y in one store.
inline bool can_pair_gates(const Matrix& w, const TensorView& y) {
  return w.n % (2 * kTileRows) == 0 && words_of(y, 2);
}

// A weight as its kernels take it, and which of them.
struct LinearCall {
  int format;
  PackedWeight w;
  InputRows x;
  bool whole_words;  // rows of x can be read 16 bytes at a time
  const char* operation;
};
LinearCall linear_call(TensorView x, const Matrix& w, const char* operation);
PackedWeight packed_weight(const Matrix& w, int& format);

// Up to this many rows of x the weights are read once and straight into registers; more share them through
// tiles.
inline constexpr int kGemvRows = 64;
template <class Epilogue>
void launch_gemv(Stream stream, const LinearCall& call, const Epilogue& epilogue);
template <class Epilogue>
void launch_gemm(Stream stream, const LinearCall& call, const Epilogue& epilogue);

// The kernels of one format, and those that read rows of any (kernel_setup.h).
template <class Epilogue>
void load_gemv_kernels(int format);
template <class Epilogue>
void load_gemm_kernels(int format);
void load_fused_kernels(int format);
void load_row_kernels();

}  // namespace tramontane::cuda
