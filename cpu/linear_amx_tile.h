// What the AMX kernels are told: a packed matrix, packed rows, and the part of one product to compute.
// Plain data only, for the reason that linear_tile.h gives.
#pragma once

#include <cstdint>

#include "cpu/linear_tile.h"

namespace tramontane {

// A tile register is 16 rows of 64 bytes. An A tile is 16 output channels x 32 K of BF16 weights, a B tile 16
// pairs of K x up to 16 rows of x, a C tile 16 channels x as many rows of FP32 sums.
inline constexpr int kTileK = 32, kTileColumns = 16, kTileBytes = 1024;

// A packed matrix: panels of 16 channels, each `panel_bytes` long and 64-byte aligned, K filled up to
// `tiles` x 32 and the last panel to 16 channels with weights of zero. A panel is one stream of units, so
// that it is read from front to back; a unit is the scales of its K (16, then 16 biases where there are any;
// twice that for groups of 16, of which a tile has two), then its codes, a tile of 32 K at a time:
//   bf16:    an A tile as it is: 16 channels x 32 weights
//   nibbles: 4 x 32 words of 16 bits; word i of vector v holds k = i of channels 4v .. 4v+3 from the lowest
//            nibble, so that a shift leaves one channel's codes where vpermw reads them
//   bytes:   16 channels x 32 codes; with a code_zero of 128 less 128, as signed bytes
//   sixes:   the low 4 bits: 16 channels x 16 bytes, byte i holding k = i and, above, k = 16 + i; then the
//            high 2 bits: 8 pairs of channels x 16 bytes, byte i holding k = i and 16 + i of the first
//            channel, then of the second
// A weight is bf16(table[nibble] * scale + bias), or bf16((code - code_zero) * scale + bias): product and sum
// rounded to FP32 each, as QuantLayout says.
struct AmxWeights {
  int64_t n, k, tiles;
  const unsigned char* panels;
  int64_t panel_bytes, unit_bytes;
  int64_t unit_tiles;        // K tiles of a unit: those of a group, at least 1
  int64_t unit_scale_bytes;  // scales and biases in front of a unit's codes
  int64_t tile_code_bytes;
  WeightCodes codes;
  ScaleType scale_type;
  bool has_bias;
  int group;           // for bf16: 0
  float code_zero;     // for sixes and bytes
  const float* table;  // for nibbles: 16 values
};

// What one thread works in.
struct alignas(64) AmxScratch {
  static constexpr int64_t kPanels = 8, kTiles = 32, kColumns = 32;
  unsigned char weights[2][kPanels * kTiles * kTileBytes];  // A tiles in use, and the next
  unsigned char resting[kColumns * kPanels * kTileBytes];   // C tiles while K is interrupted
  unsigned char c[kTileBytes];
};

// y[row, channel] for the rows of column tiles first_column_tile..last_column_tile (16 rows each) and the
// channels of panels first_panel..last_panel.
struct AmxPart {
  AmxWeights w;
  const uint16_t* x;  // BF16 [rows, k]
  int64_t x_stride;   // elements
  int64_t rows;       // of the whole product
  // Packed rows: B tiles [16 pairs][width][2] of BF16, zeros past k and past the last row. They lie as they
  // are read: a block of 32 K tiles; in it the strips, of `strip` column tiles; in those the K tiles; in
  // those the strip's column tiles.
  uint16_t* packed_x;
  int64_t packed_columns;  // column tiles of the whole product, filled up to whole strips
  int64_t strip;           // all of them up to 4, else 2
  int width;               // rows of x in a B tile: 16, or fewer where there are fewer
  float* y;
  int64_t y_stride;
  int64_t first_panel, last_panel;
  int64_t first_column_tile, last_column_tile;
  AmxScratch* scratch;  // the calling thread's own
};

struct AmxKernels {
  // Fills B tiles first..last of packed_columns x w.tiles.
  void (*pack_rows)(const AmxPart& part, int64_t first, int64_t last);
  void (*multiply_part)(const AmxPart& part);
};

extern const AmxKernels amx_linear_kernels;

}  // namespace tramontane
