// mma.sync and ldmatrix, by the fragment layouts of the PTX manual.
#include <cstring>

#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

struct FromHalf {
  f32 operator()(u32 bits) const { return half_to_f32(static_cast<u16>(bits)); }
};
struct FromBf16 {
  f32 operator()(u32 bits) const { return bf16_to_f32(static_cast<u16>(bits)); }
};

void require_all_lanes(const Warp& warp, const Instruction& i, LaneMask mask) {
  if (mask != kAllLanes)
    fault(warp, i, __builtin_ctz(mask), cudaErrorLaunchFailure,
          "warp-wide instruction without all of the warp's lanes");
}

struct Fragment {
  alignas(64) f32 a[16][16];
  alignas(64) f32 b[16][8];
  alignas(64) f32 c[16][8];
};

// Lane = 4 * group + position. A: register k holds row group + 8 * (k odd), columns 2 * position + 8 * (k /
// 2) and the next. B: register k holds rows 2 * position + 8 * k and the next, column group.
template <class Decode, int kDepth>
void gather_ab(const Warp& warp, const Instruction& i, Fragment& f) {
  constexpr int kA = kDepth / 4, kB = kDepth / 8;
  const u32* a[kA];
  const u32* b[kB];
  for (int k = 0; k < kA; ++k) a[k] = lanes<const u32>(warp, i.operands[4 + k]);
  for (int k = 0; k < kB; ++k) b[k] = lanes<const u32>(warp, i.operands[4 + kA + k]);
  const Decode decode;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane >> 2, position = lane & 3;
    for (int k = 0; k < kA; ++k) {
      f32* row = f.a[group + (k & 1) * 8] + position * 2 + (k >> 1) * 8;
      row[0] = decode(a[k][lane]);
      row[1] = decode(a[k][lane] >> 16);
    }
    for (int k = 0; k < kB; ++k) {
      const int row = position * 2 + k * 8;
      f.b[row][group] = decode(b[k][lane]);
      f.b[row + 1][group] = decode(b[k][lane] >> 16);
    }
  }
}

// Sums k in order in single precision. Real tensor cores group and truncate otherwise: last bits differ.
template <int kDepth>
void multiply(Fragment& f) {
  for (int row = 0; row < 16; ++row) {
    f32 sum[8];
    std::memcpy(sum, f.c[row], sizeof sum);
    for (int k = 0; k < kDepth; ++k)
      for (int column = 0; column < 8; ++column)
        sum[column] = __builtin_fmaf(f.a[row][k], f.b[k][column], sum[column]);
    std::memcpy(f.c[row], sum, sizeof sum);
  }
}

// C and D: registers 0, 1 hold row group, columns 2 * position and the next; registers 2, 3 row group + 8.
template <class Decode, int kDepth>
void mma_f32(Warp& warp, const Instruction& i, LaneMask mask) {
  require_all_lanes(warp, i, mask);
  Fragment f;
  gather_ab<Decode, kDepth>(warp, i, f);
  constexpr int kC = 4 + kDepth / 4 + kDepth / 8;
  for (int k = 0; k < 4; ++k) {
    const f32* c = lanes<const f32>(warp, i.operands[kC + k]);
    for (int lane = 0; lane < kLanes; ++lane)
      f.c[(lane >> 2) + (k >> 1) * 8][(lane & 3) * 2 + (k & 1)] = c[lane];
  }
  multiply<kDepth>(f);
  for (int k = 0; k < 4; ++k) {
    f32* d = lanes<f32>(warp, i.operands[k]);
    for (int lane = 0; lane < kLanes; ++lane)
      d[lane] = f.c[(lane >> 2) + (k >> 1) * 8][(lane & 3) * 2 + (k & 1)];
  }
}

// ldmatrix: lanes 8k ... 8k+7 give the rows of matrix k, 16 bytes each; a lane gets two neighbours of one row
// (transposed: of one column).
template <int kCount, bool kTransposed>
void load_matrix(Warp& warp, const Instruction& i, LaneMask mask) {
  require_all_lanes(warp, i, mask);
  const u8* rows[kCount * 8];
  for (int row = 0; row < kCount * 8; ++row) {
    const u64 at = lane_address(warp, i, i.operands[kCount], row, i.immediate);
    rows[row] = resolve(warp, i, row, at, 16, ptx::Space::kShared, Access::kRead);
  }
  const auto item = [&](int matrix, int row, int column) {
    u16 value = 0;
    std::memcpy(&value, rows[matrix * 8 + row] + 2 * column, 2);
    return static_cast<u32>(value);
  };
  for (int k = 0; k < kCount; ++k) {
    u32* d = lanes<u32>(warp, i.operands[k]);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int group = lane >> 2, pair = (lane & 3) * 2;
      d[lane] = kTransposed ? item(k, pair, group) | item(k, pair + 1, group) << 16
                            : item(k, group, pair) | item(k, group, pair + 1) << 16;
    }
  }
}

}  // namespace

void add_tensor_forms(FormTable& t) {
  t.add("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", {&mma_f32<FromBf16, 16>, "4444=4444444444"});
  t.add("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", {&mma_f32<FromHalf, 16>, "4444=4444444444"});
  t.add("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", {&mma_f32<FromBf16, 8>, "4444=4444444"});
  t.add("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", {&mma_f32<FromHalf, 8>, "4444=4444444"});
  t.add("ldmatrix.sync.aligned.m8n8.x1.shared.b16", {&load_matrix<1, false>, "4=m"});
  t.add("ldmatrix.sync.aligned.m8n8.x2.shared.b16", {&load_matrix<2, false>, "44=m"});
  t.add("ldmatrix.sync.aligned.m8n8.x4.shared.b16", {&load_matrix<4, false>, "4444=m"});
  t.add("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16", {&load_matrix<1, true>, "4=m"});
  t.add("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16", {&load_matrix<2, true>, "44=m"});
  t.add("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16", {&load_matrix<4, true>, "4444=m"});
}

}  // namespace tramontane::emulator
