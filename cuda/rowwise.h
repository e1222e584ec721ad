// The operations that work on one row at a time; backend.h defines each. Views are device memory.
#pragma once

#include "cuda/launch.h"
#include "engine/backend/tensor.h"

namespace tramontane::cuda {

void load_rowwise_kernels();  // brings their code to the device (kernel_setup.h)

void launch_add_rmsnorm(Stream stream, TensorView x, TensorView delta, TensorView w, float eps, TensorView y);
void launch_silu_mul(Stream stream, TensorView gate_up, TensorView y);
void launch_gather_rows(Stream stream, TensorView x, TensorView rows, TensorView y);

}  // namespace tramontane::cuda
