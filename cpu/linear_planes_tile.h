// What the integer-plane kernels are told: a packed matrix, rows of x as integers, and the part of one
// product to compute. Plain data only, for the reason that linear_tile.h gives.
//
// Affine codes are small integers, so with x in integers as well the sum of a group is exact, in any order:
// kernels of whatever instructions give the same bits for any number of rows. Per row and group of K
//   x = q * 2^e, q rounded to the nearest integer, the largest in magnitude 1024 to 2040: BF16 down to an
//   eighth of
//       the group's largest value exactly, and what is smaller to 2^-11 of it
//   t = 2^e * (sum of codes * q - code_zero * sum of q)          exact in FP32
//   y = fma(t, scale, y), then fma(bias, 2^e * sum of q, y)      group after group
#pragma once

#include <cstdint>

#include "cpu/linear_tile.h"

namespace tramontane {

// A packed matrix: panels of 16 channels, each `panel_bytes` long and 64-byte aligned, the last one filled up
// with zeros. A panel is one stream of units, one for each group of K: 16 scales, 16 biases where there are
// any, then the codes in chunks of 64 bytes = 16 channels x 4 bytes. The low nibbles of chunk v hold k = 4v
// .. 4v+3 of the group, the high ones the same of the group's second half.
struct PlanesWeights {
  int64_t n, k, units;
  const unsigned char* panels;
  int64_t panel_bytes, unit_bytes;
  int64_t unit_scale_bytes;  // scales and biases in front of a unit's codes
  ScaleType scale_type;
  bool has_bias;
  int group;      // 32, 64 or 128
  int code_zero;  // with biases: 0
};

// One group of 16 rows of x.
struct PlanesScales {
  float base[16];  // 1.5 * 2^(23 + e): an integer below 2^22 added to its bits adds itself times 2^e to the
                   // number
  int32_t offset[16];  // the bits of base, less code_zero * sum of q
  float sum[16];       // 2^e * sum of q
};

// Row tiles of 16 rows whose planes lie side by side, unit after unit, and that tiles of weights serve in one
// go: so many rows of 4,096 take 1 MB, half of the L2 that processors with AMX have.
inline constexpr int64_t kBlockTiles = 8;

// What one thread works in: small enough for L1.
struct alignas(64) PlanesScratch {
  unsigned char tiles[2][4 * 4 * 1024];  // weights of a unit, and of the next
  float scales[2][4 * 32];               // their scales and biases
  float y[kBlockTiles * 2 * 256];        // sums
  int32_t c[2][4 * 256];                 // sums of a group, and of the one before
};

// y[row, channel] for rows first_row..last_row and the channels of panels first_panel..last_panel.
struct PlanesPart {
  PlanesWeights w;
  const uint16_t* x;  // BF16 [rows, k]
  int64_t x_stride;   // elements
  int64_t rows;       // of the whole product
  // q = 16 * high + low of all rows, as they are multiplied: blocks of kBlockTiles row tiles (the last of
  // those that are left); in them units; in those row tiles; in those tiles of [width][64] bytes. A unit's 2
  // * group bytes of a row are the high parts of its K, signed, then the low ones, 0 to 15; they are cut into
  // tiles of 64.
  unsigned char* planes;
  int width;             // rows of a tile: 16, or fewer where there are fewer
  PlanesScales* scales;  // likewise: blocks, units, row tiles
  float* y;
  int64_t y_stride;
  int64_t first_panel, last_panel;
  int64_t first_row, last_row;  // first_row is a multiple of 32
  PlanesScratch* scratch;       // the calling thread's own
};

// Fills planes and scales of row tiles first..last, with zeros past the last row.
void quantise_rows(const PlanesPart& part, int64_t first, int64_t last);

// AVX-512 VNNI.
void multiply_planes_vnni(const PlanesPart& part);
// AMX-INT8.
void multiply_planes_amx(const PlanesPart& part);

}  // namespace tramontane
