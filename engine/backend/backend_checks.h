// Shape checks of the Backend operations, made once at op entry; kernels then trust their arguments. A
// failure is a broken invariant: it stops the program and prints what disagrees, e.g. "linear: K of x is
// 4096, K of w is 14336". Any thread.
#pragma once

#include "engine/backend/backend.h"

namespace tramontane {

void check_embed(TensorView tokens, const Matrix& table, TensorView x);
void check_linear(TensorView x, const Matrix& w, TensorView y, DType act_dtype);
void check_add_rmsnorm(TensorView x, TensorView delta, TensorView w, TensorView y, DType act_dtype);
void check_rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                         KvLayer kv);
void check_attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                     TensorView out, DType act_dtype);
void check_silu_mul(TensorView gate_up, TensorView y, DType act_dtype);
void check_gather_rows(TensorView x, TensorView rows, TensorView y);

}  // namespace tramontane
