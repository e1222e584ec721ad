#include "cuda/linear.h"

#include <stdexcept>

#include "cuda/check.cuh"
#include "cuda/linear_launch.h"

namespace tramontane::cuda {
namespace {

// A whole number that pack.cpp has seen to be a BF16 number.
uint32_t bf16_pair(float value) {
  const uint32_t bits = float_to_bf16(value);
  return bits | bits << 16;
}

void fill_codes(const QuantLayout& q, Codes codes, PackedWeight& w) {
  if (codes == Codes::fp4) w.offset = bf16_pair(-128.0f);
  if (codes == Codes::affine4) w.offset = bf16_pair(static_cast<float>(-128 - q.code_zero));
  if (codes == Codes::affine8) w.offset = bf16_pair(static_cast<float>(-256 - q.code_zero));
  if (codes != Codes::codebook4) return;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = float_to_bf16(q.table[static_cast<size_t>(i)]);
    w.table[i / 4] |= (bits & 0xffu) << (i % 4 * 8);
    w.table[4 + i / 4] |= (bits >> 8) << (i % 4 * 8);
  }
}

template <class Epilogue>
void launch(Stream stream, const char* operation, TensorView x, const Matrix& w, const Epilogue& epilogue) {
  if (x.rows == 0) return;
  const LinearCall call = linear_call(x, w, operation);
  if (call.x.rows <= kGemvRows || !call.whole_words) {
    launch_gemv(stream, call, epilogue);
  } else {
    launch_gemm(stream, call, epilogue);
  }
}

StoreEpilogue store_epilogue(TensorView y, bool add) {
  return {y.row<float>(0), y.row_stride, static_cast<int>(y.cols), add};
}

}  // namespace

PackedWeight packed_weight(const Matrix& m, int& format) {
  const PackedLayout layout = packed_layout(m.n, m.k, m.quant, m.scale_dtype);
  PackedWeight w{};
  w.codes = m.codes.data();
  w.scales = m.scales.data();
  w.n = static_cast<int>(m.n);
  w.k = static_cast<int>(m.k);
  w.row_tiles = static_cast<int>(layout.row_tiles);
  w.k_tiles = static_cast<int>(layout.k_tiles);
  w.segment_tiles = static_cast<int>(layout.segment_tiles());
  w.groups = static_cast<int>(layout.groups);
  w.group_shift = layout.group_shift;
  w.bf16_scales = layout.bf16_scales;
  w.ones = bf16_pair(1.0f);
  if (m.quant) fill_codes(*m.quant, layout.kernel_format().codes, w);
  format = layout.format;
  return w;
}

LinearCall linear_call(TensorView x, const Matrix& w, const char* operation) {
  LinearCall call{};
  call.w = packed_weight(w, call.format);
  call.x = {x.row<const uint16_t>(0), x.row_stride, static_cast<int>(x.rows)};
  call.whole_words = whole_words(x);
  call.operation = operation;
  if (!call.whole_words && w.quant)
    throw std::runtime_error("linear: rows of x must begin at multiples of 16 bytes for " +
                             describe(kFormats[call.format]) + "; the row stride is " +
                             std::to_string(x.row_stride) + " elements");
  return call;
}

void load_linear_kernels(const Matrix& w) {
  const int format = packed_layout(w.n, w.k, w.quant, w.scale_dtype).format;
  load_gemv_kernels<StoreEpilogue>(format);
  load_gemv_kernels<RopeEpilogue>(format);
  load_gemv_kernels<SiluEpilogue>(format);
  load_gemm_kernels<StoreEpilogue>(format);
  load_gemm_kernels<RopeEpilogue>(format);
  load_gemm_kernels<SiluEpilogue>(format);
  load_fused_kernels(format);
  load_row_kernels();
}

void launch_linear(Stream stream, TensorView x, const Matrix& w, TensorView y) {
  launch(stream, "linear", x, w, store_epilogue(y, false));
}

void launch_linear_add(Stream stream, TensorView x, const Matrix& w, TensorView y) {
  launch(stream, "linear_add", x, w, store_epilogue(y, true));
}

bool can_fuse_rope(TensorView h) {
  return whole_words(h);
}

bool can_fuse_silu(TensorView h, const Matrix& w, TensorView y) {
  return whole_words(h) && can_pair_gates(w, y);
}

void launch_qkv_rope(Stream stream, TensorView h, const Matrix& w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv) {
  launch(stream, "qkv_rope", h, w, rope_epilogue(qkv, batch, shape, rope, kv));
}

void launch_gate_up_silu(Stream stream, TensorView h, const Matrix& w, TensorView y) {
  launch(stream, "gate_up_silu", h, w, silu_epilogue(y));
}

}  // namespace tramontane::cuda
