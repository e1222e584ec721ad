// The tile operations in plain C++, as the manual states them (Intel, Architecture Instruction Set
// Extensions, "TDPBF16PS": sums of even and of odd k apart by FMA from zero, then both together, then onto
// C; "TDPBSSD" and "TDPBSUD": integers). What the processor would refuse stops the test: a tile that is not
// configured, shapes that do not fit. Subnormals, which the instruction takes and gives as zero, are kept.
#include "tests/ops/linear_amx_emulated.h"

#include <immintrin.h>

#include <cstdio>
#include <cstdlib>

namespace tramontane {
namespace {

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};

struct TileState {
  TileConfig config;  // palette 0: none
  alignas(64) unsigned char data[8][16][64];
};
thread_local TileState state;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "emulated tiles: %s\n", what);
  std::abort();
}

float float_of(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

struct Tiles {
  static void configure(const TileConfig& config) {
    require(config.palette == 1 && config.start_row == 0, "the palette is 1 and starts at row 0");
    for (int t = 0; t < 8; ++t)
      require(config.rows[t] <= 16 && config.row_bytes[t] <= 64, "a tile has at most 16 rows of 64 bytes");
    state = {};
    state.config = config;
  }
  static void release() { state = {}; }

  template <int T>
  static void zero() {
    check<T>();
    __builtin_memset(state.data[T], 0, sizeof state.data[T]);
  }
  template <int T>
  static void load(const void* from, int64_t stride) {
    zero<T>();
    for (int row = 0; row < state.config.rows[T]; ++row)
      __builtin_memcpy(state.data[T][row], static_cast<const unsigned char*>(from) + row * stride,
                       state.config.row_bytes[T]);
  }
  template <int T>
  static void load_once(const void* from, int64_t stride) {
    load<T>(from, stride);
  }
  template <int T>
  static void store(void* to, int64_t stride) {
    check<T>();
    for (int row = 0; row < state.config.rows[T]; ++row)
      __builtin_memcpy(static_cast<unsigned char*>(to) + row * stride, state.data[T][row],
                       state.config.row_bytes[T]);
  }
  template <int C, int A, int B>
  static void multiply() {
    check_shapes<C, A, B>();
    for (int row = 0; row < state.config.rows[C]; ++row) multiply_row(row, C, A, B);
  }
  template <int C, int A, int B>
  static void multiply_signed() {
    check_shapes<C, A, B>();
    for (int row = 0; row < state.config.rows[C]; ++row) multiply_row_of_bytes<int8_t>(row, C, A, B);
  }
  template <int C, int A, int B>
  static void multiply_bytes() {
    check_shapes<C, A, B>();
    for (int row = 0; row < state.config.rows[C]; ++row) multiply_row_of_bytes<uint8_t>(row, C, A, B);
  }

 private:
  template <int C, int A, int B>
  static void check_shapes() {
    check<C>();
    check<A>();
    check<B>();
    const TileConfig& config = state.config;
    require(config.rows[C] == config.rows[A] && config.row_bytes[C] == config.row_bytes[B] &&
                config.row_bytes[A] == 4 * config.rows[B],
            "C is rows of A x columns of B, and A as wide as B is high");
  }
  template <int T>
  static void check() {
    require(state.config.palette == 1 && state.config.rows[T] > 0 && state.config.row_bytes[T] > 0,
            "a tile is configured before it is used");
  }
  static void multiply_row(int row, int c, int a, int b) {
    float even[16] = {}, odd[16] = {};
    for (int pair = 0; pair < state.config.rows[b]; ++pair) {
      uint16_t weights[2], x[32];
      __builtin_memcpy(weights, state.data[a][row] + pair * 4, 4);
      __builtin_memcpy(x, state.data[b][pair], 64);
      for (int i = 0; i < 16; ++i) {
        even[i] = __builtin_fmaf(float_of(weights[0]), float_of(x[2 * i]), even[i]);
        odd[i] = __builtin_fmaf(float_of(weights[1]), float_of(x[2 * i + 1]), odd[i]);
      }
    }
    float sums[16];
    __builtin_memcpy(sums, state.data[c][row], 64);
    for (int i = 0; i < state.config.row_bytes[c] / 4; ++i) sums[i] += even[i] + odd[i];
    __builtin_memcpy(state.data[c][row], sums, 64);
  }
  // A signed, B as named.
  template <class B>
  static void multiply_row_of_bytes(int row, int c, int a, int b) {
    int32_t sums[16];
    __builtin_memcpy(sums, state.data[c][row], 64);
    for (int k = 0; k < state.config.row_bytes[a]; ++k)
      for (int i = 0; i < state.config.row_bytes[c] / 4; ++i)
        sums[i] +=
            static_cast<int8_t>(state.data[a][row][k]) * static_cast<B>(state.data[b][k / 4][i * 4 + k % 4]);
    __builtin_memcpy(state.data[c][row], sums, 64);
  }
};

namespace bf16 {
#include "cpu/linear_amx_tiles.inc"
}
namespace planes {
#include "cpu/linear_planes_tiles.inc"
}

}  // namespace

const AmxKernels amx_emulated_kernels{bf16::pack_rows, bf16::multiply_part};

void multiply_planes_emulated(const PlanesPart& part) {
  planes::multiply_part(part);
}

}  // namespace tramontane
