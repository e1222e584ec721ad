// The parts of linear.h's launchers, one per kernel file: each looks its kernel up in its own closed table,
// by format. CUDA sources only.
#pragma once

#include "cuda/launch.h"
#include "cuda/linear_segment.cuh"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

struct OutputRows {
  float* data;
  int64_t stride;
  bool add;  // y += instead of y =
};

// A weight as its kernels take it, and which of them.
struct LinearCall {
  int format;
  PackedWeight w;
  InputRows x;
  bool whole_words;  // rows of x can be read 16 bytes at a time
};
LinearCall linear_call(TensorView x, const Matrix& w);
PackedWeight packed_weight(const Matrix& w, int& format);

// Up to this many rows of x the weights are read once and straight into registers; more share them through
// tiles.
inline constexpr int kGemvRows = 64;
void launch_gemv(Stream stream, const LinearCall& call, OutputRows y);
void launch_gemm(Stream stream, const LinearCall& call, OutputRows y);

}  // namespace tramontane::cuda
