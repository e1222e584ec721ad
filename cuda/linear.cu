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

void launch(Stream stream, TensorView x, const Matrix& w, OutputRows y) {
  if (x.rows == 0) return;
  const LinearCall call = linear_call(x, w);
  if (call.x.rows <= kGemvRows || !call.whole_words) {
    launch_gemv(stream, call, y);
  } else {
    launch_gemm(stream, call, y);
  }
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

LinearCall linear_call(TensorView x, const Matrix& w) {
  LinearCall call{};
  call.w = packed_weight(w, call.format);
  call.x = {x.row<const uint16_t>(0), x.row_stride, static_cast<int>(x.rows)};
  call.whole_words =
      reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.row_stride % 8 == 0 && x.cols % 8 == 0;
  if (!call.whole_words && w.quant)
    throw std::runtime_error("linear: rows of x must begin at multiples of 16 bytes for " +
                             describe(kFormats[call.format]) + "; the row stride is " +
                             std::to_string(x.row_stride) + " elements");
  return call;
}

void launch_linear(Stream stream, TensorView x, const Matrix& w, TensorView y) {
  launch(stream, x, w, {y.row<float>(0), y.row_stride, false});
}

void launch_linear_add(Stream stream, TensorView x, const Matrix& w, TensorView y) {
  launch(stream, x, w, {y.row<float>(0), y.row_stride, true});
}

}  // namespace tramontane::cuda
