// The order that weights have on the device, for the packing on the host and the kernels that read it. Plain
// C++, any thread.
//
// A matrix is cut into tiles of 16 outputs x 64 inputs, filled up with zeros. A tile is the A operands of
// four mma.m16n8k16 ("steps"), and what one lane hands to the four is 1, 2 or 4 16-byte words (4-bit, 8-bit,
// BF16); word v of all lanes is 512 contiguous bytes:
//   codes   [row tile][k tile][word][lane][16 bytes]
// Operand register j of lane (g = lane / 4, t = lane % 4) holds two inputs of row g + 8·(j % 2), namely
// elements 2·(j / 2) and 2·(j / 2) + 1 of four neighbours that begin at first_input(step, t). The mma manual
// has t's inputs of a step apart; since a sum over k may be taken in any order, neighbours are given to a
// lane instead, so that its share of a row of x is whole 16-byte words (8 bytes where every 16 inputs have a
// scale of their own) that come out of memory as B operands, without ldmatrix.
//
//   scales  [row tile][group][g][ scale of row g, of row g+8, (bias of row g, of row g+8) ]     16 or 32 bits
//   each
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "engine/backend/matrix.h"

namespace tramontane::cuda {

inline constexpr int kTileRows = 16, kTileK = 64, kTileSteps = 4, kLanes = 32, kWordBytes = 16;
// K is cut into at most so many segments of whole tiles, one for each of the 8 warps of a block that computes
// few rows.
inline constexpr int kSegments = 8;

// How a code becomes a BF16 number; the scale is applied to the FP32 sum of a group ("fold").
enum class Codes : uint8_t {
  dense,    // BF16, no scale
  affine4,  // code - code_zero, exact
  fp4,  // bitsandbytes' FP4: 192 times its table is {0, 1, 128, 192, 64, 96, 32, 48} and exact; scales are
        // divided
  codebook4,  // any table, each entry rounded to BF16 (NF4)
  affine8,    // code - code_zero, exact
};

// What a kernel is compiled for.
struct PackedFormat {
  Codes codes = Codes::dense;
  int fold = 64;  // inputs whose sum is scaled at once: 16, 32 or 64; divides the layout's group
  bool bias = false;
  int scale_bytes = 0;  // 4: FP32; 2: F16 or BF16 as the file has them; 0: none
  constexpr bool operator==(const PackedFormat&) const = default;
};

// All formats there are kernels for. A layout takes the cheapest that can hold it: scales may be widened to
// FP32, a bias of zero may be added, and a group may be folded in parts.
inline constexpr PackedFormat kFormats[] = {
    {Codes::dense},
    {Codes::affine4, 64, true, 2},     // MLX 2, 3 and 4 bits
    {Codes::affine4, 32, false, 2},    // Q4_0
    {Codes::affine4, 32, true, 2},     // Q4_1
    {Codes::affine4, 32, true, 4},     // Q4_K
    {Codes::affine4, 16, false, 4},    // Q3_K
    {Codes::affine4, 16, true, 4},     // Q2_K
    {Codes::fp4, 64, false, 4},        // bitsandbytes FP4
    {Codes::codebook4, 64, false, 4},  // bitsandbytes NF4
    {Codes::codebook4, 16, false, 4},  // codebooks with smaller groups
    {Codes::affine8, 64, true, 2},     // MLX 5, 6 and 8 bits
    {Codes::affine8, 32, false, 2},    // Q8_0, Q5_0
    {Codes::affine8, 32, true, 2},     // Q5_1
    {Codes::affine8, 32, true, 4},     // Q5_K
    {Codes::affine8, 16, false, 4},    // Q6_K
    {Codes::affine8, 16, true, 4},     // what is left
};
inline constexpr int kFormatCount = sizeof kFormats / sizeof kFormats[0];

constexpr int words_per_tile(Codes codes) {
  return codes == Codes::dense ? 4 : codes == Codes::affine8 ? 2 : 1;
}
constexpr int bytes_per_scale_entry(const PackedFormat& f) {
  return 2 * f.scale_bytes * (f.bias ? 2 : 1);
}

// The first of the four neighbouring inputs (within a tile) that lane t of a row hands to a step.
constexpr int first_input(int fold, int step, int t) {
  return fold == 16 ? 16 * step + 4 * t : 32 * (step / 2) + 8 * t + 4 * (step % 2);
}

struct PackedLayout {
  int format = 0;  // index into kFormats
  int64_t row_tiles = 0, k_tiles = 0;
  int64_t groups = 0;   // scale entries of a row
  int group_shift = 0;  // log2(group / fold)
  bool bf16_scales = false;

  const PackedFormat& kernel_format() const { return kFormats[format]; }
  int64_t segment_tiles() const { return (k_tiles + kSegments - 1) / kSegments; }
  size_t code_bytes_per_row_tile() const {
    return static_cast<size_t>(k_tiles) * words_per_tile(kernel_format().codes) * kLanes * kWordBytes;
  }
  size_t scale_bytes_per_row_tile() const {
    return static_cast<size_t>(groups) * 8 * bytes_per_scale_entry(kernel_format());
  }
};

// The layout of a matrix of n x k. Throws std::runtime_error, naming the layout, when no kernel has it.
PackedLayout packed_layout(int64_t n, int64_t k, const std::optional<QuantLayout>& quant, DType scale_dtype);

// "affine4, a fold of 32, biases, 16-bit scales": for messages.
std::string describe(const PackedFormat& format);

}  // namespace tramontane::cuda
