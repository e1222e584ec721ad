// Weight matrices: the one canonical form every checkpoint format is brought to, on the host (HostMatrix) and uploaded (Matrix).
// Immutable once made; reading is safe from any thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "engine/backend/dtype.h"
#include "engine/backend/tensor.h"

namespace tramontane {

// How a quantised matrix spells a weight. With g = k / group, both steps rounded to FP32 (a product, then a sum; no fma):
//   bits == 4:  w[n,k] = table[code] * scale[n,g] (+ bias[n,g])
//   bits == 6, 8:  w[n,k] = (code - code_zero) * scale[n,g] (+ bias[n,g])
// For a 4-bit affine format table[i] = i - code_zero; for a codebook (FP4, NF4) table is the library's own, code_zero 0.
//   bitsandbytes FP4/NF4: scale = absmax, FP32.  MLX affine: scale and bias BF16 (or F16/F32), code_zero 0.
//   GGUF Q4_0: scale F16, code_zero 8.  Q4_1: scale and bias F16.  Q8_0: scale F16, code_zero 128 (the stored byte is q + 128).
//   GGUF Q6_K: 6 bits, group 16, scale = d * scales[i] in FP32, code_zero 32.
struct QuantLayout {
  int bits = 4;           // 4, 6 or 8: the slot of a code; 2- and 3-bit codes sit in slots of 4 bits, 5-bit codes in slots of 6
  int group = 64;         // weights along K that share a scale; 16, 32, 64 or 128; divides K
  bool has_bias = false;
  int code_zero = 0;
  std::array<float, 16> table{};   // only for bits == 4
  bool operator==(const QuantLayout&) const = default;
};

// A weight matrix [n, k] in host memory, canonical order: row-major, output channel n, input k.
//   dense:  `codes` holds n*k elements of dense_dtype (F32, F16 or BF16).
//   4-bit:  `codes` holds n*k/2 bytes, even k in the low nibble.     6- and 8-bit: n*k bytes; a backend may keep 6 bits as 6.
//   scales, biases: [n, k/group] of scale_dtype.
// The spans view `owner` (an mmap, or a vector that the loader filled).
struct HostMatrix {
  int64_t n = 0;
  int64_t k = 0;
  DType dense_dtype = DType::bf16;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
  std::span<const std::byte> codes, scales, biases;
  std::shared_ptr<const void> owner;
};

// An uploaded weight matrix. The order of bytes inside the buffers is the backend's own.
struct Matrix {
  int64_t n = 0;
  int64_t k = 0;
  DType dense_dtype = DType::bf16;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
  Buffer codes, scales, biases;   // a backend may keep everything interleaved in `codes`

  size_t bytes() const { return codes.size() + scales.size() + biases.size(); }
};

// Bytes that the spans of a canonical matrix must have. Dimensions are already checked to be sane (n, k > 0, n*k < 2^48).
struct MatrixBytes {
  size_t codes = 0, scales = 0;   // biases == scales where has_bias
};
MatrixBytes canonical_bytes(int64_t n, int64_t k, DType dense_dtype, const std::optional<QuantLayout>& quant,
                            DType scale_dtype);

// Stops (CHECK) unless the spans have exactly the bytes that the shape asks for.
void check_canonical(const HostMatrix& matrix);

// The reference dequantisation: row `n` as FP32 [k]. This is the definition that every kernel is compared with.
void dequantize_row(const HostMatrix& matrix, int64_t n, std::span<float> out);

}  // namespace tramontane
