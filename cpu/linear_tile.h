// What a vector kernel is told: a packed matrix and the part of one product that it is to compute.
// Plain data only: this header is compiled into translation units with instruction-set flags, and any inline
// function they share with the others could reach a processor that cannot run it.
#pragma once

#include <cstdint>

namespace tramontane {

// Output channels of a panel: the FP32 lanes of one 512-bit vector.
inline constexpr int kPanelChannels = 16;

enum class WeightCodes : uint8_t { bf16, nibbles, sixes, bytes };
enum class ScaleType : uint8_t { f32, f16, bf16 };

// A packed matrix: panels of 16 channels, each `panel_bytes` long and 64-byte aligned, the last one filled up
// with zeros. A panel is its scales (`scale_bytes`: per group 16 scales, then 16 biases where there are any),
// then its codes, 64 bytes = 16 channels x 32 bits at a time. The 32 bits of a channel:
//   bf16:    weights k, k+1
//   nibbles: codes of k, k+2, k+4, k+6 in bits 0..15 from the lowest, of k+1, k+3, k+5, k+7 in bits 16..31
//   sixes:   the low 4 bits of k .. k+7 as nibbles, then those of k+8 .. k+15, then the high 2 bits of both:
//            of k, k+2, .. k+14 in bits 0..15, of k+1, .. k+15 in bits 16..31  (64 bytes each)
//   bytes:   codes of k .. k+3 from the lowest byte
// A weight is table[nibble] * scale + bias, or (code - code_zero) * scale + bias.
struct PackedWeights {
  int64_t n, k;
  const unsigned char* panels;
  int64_t panel_bytes, scale_bytes;
  WeightCodes codes;
  ScaleType scale_type;
  bool has_bias;
  int group;                   // for bf16: 0
  float code_zero;             // for sixes and bytes
  const uint16_t* table_bf16;  // for nibbles: the 16 values in BF16, twice
  const float* table_f32;      // and in FP32
  float table_factor;  // a power of two that takes its largest entry to 2^12 .. 2^13; without a table 1
};

// y[row, channel] for rows first_row..last_row and the channels of panels first_panel..last_panel.
struct LinearPart {
  PackedWeights w;
  const uint16_t* x;  // BF16 [rows, k]
  int64_t x_stride;   // elements
  float* y;
  int64_t y_stride;
  float* x_sums;  // with biases: [rows, k / group], the sum of x over each group
  int64_t first_panel, last_panel;
  int64_t first_row, last_row;
  // For kernels in integers, whose x above is then the words:
  // [rows, k]: x / 2^e of its group, rounded to the nearest integer, the largest in magnitude 1024 to 2040
  int16_t* x_words;
  float* x_steps;  // [rows, k / group]: 2^e / table_factor
};

// One instruction set. multiply_part reads x_sums where the matrix has biases; prepare_rows writes them for
// rows first_row..last_row, and kernels in integers the words and steps of x.
struct LinearKernels {
  void (*multiply_part)(const LinearPart& part);
  void (*prepare_rows)(const LinearPart& part);
};

extern const LinearKernels avx2_linear_kernels, avx512_linear_kernels, avx512bf16_linear_kernels;
// In integers: per row and group t = 2^e * (sum of weights * q), the sum exact and rounded to
// FP32 once, then folded as everywhere. Weights are bytes less their zero, or table entries times
// table_factor rounded to integers. Groups of up to 128, not BF16 weights.
extern const LinearKernels avx2_word_kernels, avx512_word_kernels, vnni_word_kernels;

}  // namespace tramontane
