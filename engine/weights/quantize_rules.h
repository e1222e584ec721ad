// How bitsandbytes and MLX choose codes: the rules of their own CPU implementations, bit for bit. Pure
// functions, any thread. All arithmetic FP32, one rounding an operation; the inputs are finite.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tramontane {

enum class FourBit { fp4, nf4 };

// bitsandbytes' code tables, exact: index is the code, the value what it stands for before scaling. The table
// of a checkpoint holds +0 for FP4's code 8.
const std::array<float, 16>& bitsandbytes_table(FourBit type);

// One block (64 weights, an even number). Writes block.size() / 2 bytes, the even element in the high nibble,
// and returns absmax. The nearest entry of the table to w * (1 / absmax); exactly between two, the smaller
// one (bitsandbytes 0.50: torch.bucketize over the midpoints of the sorted table).
float quantize_bitsandbytes_block(std::span<const float> block, FourBit type, uint8_t* out);

// One group of MLX's affine mode, bits 2 to 8 (not 7). `codes` receives one code a byte; scale and bias are
// FP32, to be rounded to the weights' dtype by the caller: the codes are chosen before that rounding (mlx
// 0.32, CPU). The end of the range with the larger magnitude is met exactly.
struct AffineGroup {
  float scale = 0, bias = 0;
};
AffineGroup quantize_mlx_group(std::span<const float> group, int bits, uint8_t* codes);

// Packs codes of `bits` bits, lowest bits first, into codes.size() * bits / 8 bytes (a whole number).
void pack_bit_stream(std::span<const uint8_t> codes, int bits, uint8_t* out);

}  // namespace tramontane
