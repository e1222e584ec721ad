// What the integer-plane kernels are told: a packed matrix, rows of x as integers, and the part of one
// product to compute. Plain data only, for the reason that linear_tile.h gives.
//
// Affine 4-bit weights and x both become integers of 16 bits, in blocks of up to 512 of K, so that the sum of
// a whole block is exact, in any order: kernels of whatever instructions give the same bits for any number of
// rows. Per block
//   x = q * 2^e of the row, q rounded to the nearest integer, the largest in magnitude 8192 to 16320: BF16
//       down to a 64th of the block's largest value exactly, and what is smaller to 2^-14 of it
//   weight = (S * code + B) * 2^f of the channel; S = scale / 2^f and B = bias / 2^f (or -code_zero * S)
//       rounded to the nearest integer, f the least for which no weight of the block exceeds 32752
//   t = (sum of (S * code + B) * q) >> 8          as FP32
//   y = fma(t * 2^(e + 8), 2^f, y)                block after block
#pragma once

#include <cstdint>

#include "cpu/linear_tile.h"

namespace tramontane {

// Beyond 512 the low parts of x times weights, summed, could leave 32 bits.
inline constexpr int64_t kMostBlockK = 512;

// A packed matrix: panels of 16 channels, each `panel_bytes` long and 64-byte aligned, the last one filled up
// with zeros. A panel is one stream of blocks: a byte for each of 16 channels, the exponent of 2^f as FP32
// has it (255 where a scale is no number), then units, one for each group: 16 scales, 16 biases where there
// are any, and the codes in chunks of 64 bytes = 16 channels x 4 bytes. The low nibbles of chunk v hold k =
// 4v .. 4v+3 of the group, the high ones the same of the group's second half.
struct PlanesWeights {
  int64_t n, k, units, blocks;
  int64_t block_k;  // K of a block: whole groups and whole steps of 64; the last block has what is left
  const unsigned char* panels;
  int64_t panel_bytes, block_bytes, unit_bytes;
  int64_t unit_scale_bytes;  // scales and biases in front of a unit's codes
  ScaleType scale_type;
  bool has_bias;
  int group;      // 32, 64 or 128
  int code_zero;  // with biases: 0
};

// One block of 16 rows of x: 2^(e + 8), not a number where a value is none.
struct PlanesSteps {
  float of[16];
};

// One group of 16 rows of x: the sums of its high and of its low parts, as words of 16 bits.
struct PlanesSums {
  int32_t high[16], low[16];
};

// Row tiles of 16 rows whose planes lie side by side, block after block, and that tiles of weights serve in
// one go.
inline constexpr int64_t kRowTiles = 4;

// A panel's block as VNNI takes it many times: chunks of codes as bytes, in order of k; S and B of each unit.
struct alignas(64) PlanesExpanded {
  unsigned char codes[kMostBlockK * kPanelChannels];
  int32_t scales[kMostBlockK / 32][2][kPanelChannels];
};

// What one thread works in: what either kernel needs is small enough for L1.
struct alignas(64) PlanesScratch {
  PlanesExpanded expanded[2];                // VNNI: two panels
  unsigned char tiles[2][kMostBlockK * 32];  // AMX: weights of a block, and of the next
  int32_t c[2][3 * 256];                     // AMX: sums of a block, and of the one before
};

// y[row, channel] for rows first_row..last_row and the channels of panels first_panel..last_panel.
struct PlanesPart {
  PlanesWeights w;
  const uint16_t* x;  // BF16 [rows, k]
  int64_t x_stride;   // elements
  int64_t rows;       // of the whole product
  // q = 256 * high + low of all rows, both signed, as they are multiplied: kRowTiles row tiles together (the
  // last of them those that are left); in them blocks; in those row tiles; in those steps of 64 of K: a tile
  // [width][64] of high parts, then one of low ones. Past k and past the last row they are zeros.
  unsigned char* planes;
  int width;           // rows of a tile: 16, or fewer where there are fewer
  PlanesSteps* steps;  // [row tiles, blocks]
  PlanesSums* sums;    // [row tiles, units]
  float* y;
  int64_t y_stride;
  int64_t first_panel, last_panel;
  int64_t first_row, last_row;  // first_row is a multiple of kRowTiles * 16
  PlanesScratch* scratch;       // the calling thread's own
};

// Fills planes, steps and sums of row tiles first..last.
void quantise_rows(const PlanesPart& part, int64_t first, int64_t last);

// AVX-512 VNNI.
void multiply_planes_vnni(const PlanesPart& part);
// AMX-INT8.
void multiply_planes_amx(const PlanesPart& part);

}  // namespace tramontane
