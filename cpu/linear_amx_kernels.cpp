// The tile operations as the processor has them, and the walks over them. Written as assembly with the memory
// they touch named: the intrinsics of GCC 12 do not name it, so that stores into a tile's source may be
// dropped before the tile is loaded.
#include <immintrin.h>

#include "cpu/linear_amx_tile.h"
#include "cpu/linear_planes_tile.h"

namespace tramontane {
namespace {

struct TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

// Tile registers by number. Each thread has its own; configure() comes first and release() last.
struct Tiles {
  using Bytes = unsigned char[1024];  // as many as a tile touches at most: rows are 64 bytes apart or fewer

  static void configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }
  static void release() { __asm__ volatile("tilerelease" ::: "memory"); }
  template <int T>
  static void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(T));
  }
  template <int T>
  static void load(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T),
                     "m"(*static_cast<const Bytes*>(from)));
  }
  // What is not read again soon: it need not push anything out of L1.
  template <int T>
  static void load_once(const void* from, int64_t stride) {
    __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(T),
                     "m"(*static_cast<const Bytes*>(from)));
  }
  template <int T>
  static void store(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c3, (%1,%2,1)"
                     : "+m"(*static_cast<Bytes*>(to))
                     : "r"(to), "r"(stride), "i"(T));
  }
  // C += A x B, in BF16.
  template <int C, int A, int B>
  static void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  // C += A x B, in signed bytes.
  template <int C, int A, int B>
  static void multiply_signed() {
    __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
  // In signed bytes of A and unsigned ones of B.
  template <int C, int A, int B>
  static void multiply_bytes() {
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
  }
};

namespace bf16 {
#include "cpu/linear_amx_tiles.inc"
}
namespace planes {
#include "cpu/linear_planes_tiles.inc"
}

}  // namespace

const AmxKernels amx_linear_kernels{bf16::pack_rows, bf16::multiply_part};

void multiply_planes_amx(const PlanesPart& part) {
  planes::multiply_part(part);
}

}  // namespace tramontane
