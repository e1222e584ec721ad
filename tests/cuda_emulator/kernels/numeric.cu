// One PTX instruction at a time over arrays.
#include <cuda_fp16.h>

#include "tests/cuda_emulator/kernels/kernels.h"

namespace emulator_kernels {
namespace {

// y = the instruction's result for x; registers of 32 bits on both sides.
#define R32(instruction) asm(instruction " %0, %1;" : "=r"(y) : "r"(x))
// Through 16-bit registers a and b.
#define FROM16(instruction) \
  asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; " instruction " %0, a;}" : "=r"(y) : "r"(x))
#define TO16(instruction) asm("{.reg .b16 a; " instruction " a, %1; cvt.u32.u16 %0, a;}" : "=r"(y) : "r"(x))

__device__ uint32_t convert(Unary op, uint32_t x) {
  uint32_t y = 0;
  switch (op) {
    case Unary::kBf16ToF32:
      return __float_as_uint(__bfloat162float(__ushort_as_bfloat16((unsigned short)x)));
    case Unary::kHalfToF32:
      FROM16("cvt.f32.f16");
      break;
    case Unary::kF32ToBf16:
      TO16("cvt.rn.bf16.f32");
      break;
    case Unary::kF32ToBf16Zero:
      TO16("cvt.rz.bf16.f32");
      break;
    case Unary::kF32ToHalf:
      TO16("cvt.rn.f16.f32");
      break;
    case Unary::kF32ToHalfZero:
      TO16("cvt.rz.f16.f32");
      break;
    case Unary::kF32ToS32Nearest:
      R32("cvt.rni.s32.f32");
      break;
    case Unary::kF32ToS32Zero:
      R32("cvt.rzi.s32.f32");
      break;
    case Unary::kF32ToS32Down:
      R32("cvt.rmi.s32.f32");
      break;
    case Unary::kF32ToS32Up:
      R32("cvt.rpi.s32.f32");
      break;
    case Unary::kF32ToU8Saturated:
      R32("cvt.rni.sat.u8.f32");
      break;
    case Unary::kF32ToU32Zero:
      R32("cvt.rzi.u32.f32");
      break;
    case Unary::kS32ToF32:
      R32("cvt.rn.f32.s32");
      break;
    case Unary::kS32ToF32Down:
      R32("cvt.rm.f32.s32");
      break;
    case Unary::kU32ToF32Up:
      R32("cvt.rp.f32.u32");
      break;
    case Unary::kHalfToS16:
      asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; cvt.rni.s16.f16 b, a; cvt.u32.u16 %0, b;}"
          : "=r"(y)
          : "r"(x));
      break;
    case Unary::kS16ToHalf:
      asm("{.reg .b16 a, b; mov.b32 {a, b}, %1; cvt.rn.f16.s16 b, a; cvt.u32.u16 %0, b;}" : "=r"(y) : "r"(x));
      break;
    case Unary::kS8OfU32:
      R32("cvt.s32.s8");
      break;
    case Unary::kU16OfU32:
      asm("{.reg .b16 a, b; cvt.u16.u32 a, %1; mov.b16 b, 0; mov.b32 %0, {a, b};}" : "=r"(y) : "r"(x));
      break;
    case Unary::kU32OfU16:
      FROM16("cvt.u32.u16");
      break;
    case Unary::kU32ToF32:
      R32("cvt.rn.f32.u32");
      break;
    case Unary::kRoundF32:
      R32("cvt.rni.f32.f32");
      break;
    case Unary::kFloorF32:
      R32("cvt.rmi.f32.f32");
      break;
    case Unary::kTruncateF32:
      R32("cvt.rzi.f32.f32");
      break;
    case Unary::kSaturateF32:
      R32("cvt.sat.f32.f32");
      break;
    default:
      break;
  }
  return y;
}

__device__ uint32_t approximate(Unary op, uint32_t x) {
  uint32_t y = 0;
  switch (op) {
    case Unary::kEx2:
      R32("ex2.approx.f32");
      break;
    case Unary::kLg2:
      R32("lg2.approx.f32");
      break;
    case Unary::kRsqrt:
      R32("rsqrt.approx.f32");
      break;
    case Unary::kRcp:
      R32("rcp.approx.f32");
      break;
    case Unary::kSqrt:
      R32("sqrt.approx.f32");
      break;
    case Unary::kSin:
      R32("sin.approx.f32");
      break;
    case Unary::kCos:
      R32("cos.approx.f32");
      break;
    case Unary::kTanh:
      R32("tanh.approx.f32");
      break;
    case Unary::kPopc:
      return __popc(x);
    case Unary::kClz:
      return __clz(x);
    case Unary::kBrev:
      return __brev(x);
    case Unary::kBfind:
      R32("bfind.u32");
      break;
    case Unary::kFtzAdd:
      asm("add.ftz.f32 %0, %1, 0f00000000;" : "=r"(y) : "r"(x));
      break;
    default:
      break;
  }
  return y;
}

__global__ void unary_kernel(Unary op, const uint32_t* x, uint32_t* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = op < Unary::kEx2 ? convert(op, x[i]) : approximate(op, x[i]);
}

// Registers of 64 bits on both sides; the low half of one of them, or its lowest quarter.
#define R64(instruction) asm(instruction " %0, %1;" : "=l"(y) : "l"(x))
#define FROM_LOW(instruction) \
  asm("{.reg .b32 a, b; mov.b64 {a, b}, %1; " instruction " %0, a;}" : "=l"(y) : "l"(x))
#define TO_LOW(instruction) \
  asm("{.reg .b32 a, b; " instruction " a, %1; mov.b32 b, 0; mov.b64 %0, {a, b};}" : "=l"(y) : "l"(x))
#define FROM_LOWEST(instruction) \
  asm("{.reg .b16 a, b, c, d; mov.b64 {a, b, c, d}, %1; " instruction " %0, a;}" : "=l"(y) : "l"(x))
#define TO_LOWEST(instruction) \
  asm("{.reg .b16 a, b; " instruction " a, %1; mov.b16 b, 0; mov.b64 %0, {a, b, b, b};}" : "=l"(y) : "l"(x))

__device__ uint64_t convert_wide(Wide op, uint64_t x) {
  uint64_t y = 0;
  switch (op) {
    case Wide::kF32ToF64:
      FROM_LOW("cvt.f64.f32");
      break;
    case Wide::kU32ToF64:
      FROM_LOW("cvt.rn.f64.u32");
      break;
    case Wide::kU64ToF64:
      R64("cvt.rn.f64.u64");
      break;
    case Wide::kU64ToF32Zero:
      TO_LOW("cvt.rz.f32.u64");
      break;
    case Wide::kS32ToS64:
      FROM_LOW("cvt.s64.s32");
      break;
    case Wide::kU32ToU64:
      FROM_LOW("cvt.u64.u32");
      break;
    case Wide::kU64ToU32:
      TO_LOW("cvt.u32.u64");
      break;
    case Wide::kHalfToS64:
      FROM_LOWEST("cvt.rzi.s64.f16");
      break;
    case Wide::kHalfToU64:
      FROM_LOWEST("cvt.rzi.u64.f16");
      break;
    case Wide::kF32ToS64:
      FROM_LOW("cvt.rzi.s64.f32");
      break;
    case Wide::kF32ToU64:
      FROM_LOW("cvt.rzi.u64.f32");
      break;
    case Wide::kF64ToS64:
      R64("cvt.rzi.s64.f64");
      break;
    case Wide::kF64ToU64:
      R64("cvt.rzi.u64.f64");
      break;
    case Wide::kF64ToS32:
      TO_LOW("cvt.rzi.s32.f64");
      break;
    case Wide::kF64ToU32:
      TO_LOW("cvt.rzi.u32.f64");
      break;
    case Wide::kF64ToS16:
      TO_LOWEST("cvt.rzi.s16.f64");
      break;
    case Wide::kF64ToU16:
      TO_LOWEST("cvt.rzi.u16.f64");
      break;
  }
  return y;
}

__global__ void wide_kernel(Wide op, const uint64_t* x, uint64_t* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = convert_wide(op, x[i]);
}

#define R3(instruction, immediate) \
  asm(instruction " %0, %1, %2, %3" immediate ";" : "=r"(d) : "r"(a), "r"(b), "r"(c))

__device__ uint32_t apply(Ternary op, uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d = 0;
  switch (op) {
    case Ternary::kLop3:
      R3("lop3.b32", ", 0x6A");
      break;
    case Ternary::kPrmt:
      R3("prmt.b32", "");
      break;
    case Ternary::kBfe:
      R3("bfe.u32", "");
      break;
    case Ternary::kBfeSigned:
      R3("bfe.s32", "");
      break;
    case Ternary::kBfi:
      asm("bfi.b32 %0, %1, %2, %3, 5;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
      break;
    case Ternary::kFunnelLeft:
      R3("shf.l.wrap.b32", "");
      break;
    case Ternary::kFunnelRight:
      R3("shf.r.clamp.b32", "");
      break;
    case Ternary::kDp4a:
      R3("dp4a.s32.s32", "");
      break;
    case Ternary::kFmaDown:
      R3("fma.rm.f32", "");
      break;
    case Ternary::kFmaUp:
      R3("fma.rp.f32", "");
      break;
    case Ternary::kHalfFma:
      R3("fma.rn.f16x2", "");
      break;
    case Ternary::kBf16Fma:
      R3("fma.rn.bf16x2", "");
      break;
    case Ternary::kMulHi:
      return __umulhi(a, b) + c;
    case Ternary::kMad:
      R3("mad.lo.s32", "");
      break;
    case Ternary::kPackBf16:
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
      break;
  }
  return d;
}

__global__ void ternary_kernel(Ternary op, const uint32_t* a, const uint32_t* b, const uint32_t* c,
                               uint32_t* d, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) d[i] = apply(op, a[i], b[i], c[i]);
}

}  // namespace

void unary(Unary op, const uint32_t* x, uint32_t* y, int n) {
  unary_kernel<<<(n + 255) / 256, 256>>>(op, x, y, n);
}
void wide(Wide op, const uint64_t* x, uint64_t* y, int n) {
  wide_kernel<<<(n + 255) / 256, 256>>>(op, x, y, n);
}
void ternary(Ternary op, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* d, int n) {
  ternary_kernel<<<(n + 255) / 256, 256>>>(op, a, b, c, d, n);
}

}  // namespace emulator_kernels
