// RoPE with KV append (backend.h, rope_store_kv). A row whose slot is negative is padding: rotated, not
// stored.
#pragma once

#include "cuda/launch.h"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

void load_rope_kernels();  // brings their code to the device (kernel_setup.h)

void launch_rope_store_kv(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                          TensorView rope, KvLayer kv);

}  // namespace tramontane::cuda
