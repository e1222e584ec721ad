// Every PTX instruction that CUDA C++ does not spell, once, by name. sm_80 and newer. Asm without side
// effects is not volatile, so that the compiler may move it to where its latency hides; whatever touches
// shared memory or waits is volatile and names memory.
#pragma once

#include <cstdint>

namespace tramontane::cuda::ptx {

// A pointer into shared memory as the 32-bit address that shared-space instructions take.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- Tensor cores
// -------------------------------------------------------------------------------------------

// c[16x8] += a[16x16] · b[16x8], BF16 in, FP32 sums. With g = lane / 4, t = lane % 4 (PTX ISA,
// "mma.m16n8k16"):
//   a[0]: row g, k 2t 2t+1   a[1]: row g+8, k 2t 2t+1   a[2]: row g, k 2t+8 2t+9   a[3]: row g+8, k 2t+8 2t+9
//   b[0]: k 2t 2t+1, column g                           b[1]: k 2t+8 2t+9, column g
//   c[0], c[1]: row g, columns 2t 2t+1                  c[2], c[3]: row g+8, columns 2t 2t+1
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c = a · b: the first of a chain, which needs no registers set to zero.
__device__ __forceinline__ void mma_bf16_from_zero(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                   uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%10,%10,%10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

// Four 8x8 matrices of 16-bit elements from shared memory. Lanes 8i .. 8i+7 give the addresses of the rows of
// matrix i (16 bytes each, 16-byte aligned); a lane gets elements 2t, 2t+1 of row g of each.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// Likewise, each matrix transposed: a lane gets elements g of rows 2t, 2t+1.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// Two matrices; lanes 0 .. 15 give the rows.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// ---- Asynchronous copies to shared memory
// -------------------------------------------------------------------

// 16 bytes, both sides 16-byte aligned, past L1. The copy is seen after its group was waited for, by other
// threads after a barrier too.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global)
               : "memory");
}
// Likewise, but zeros are written where `valid` is false; `global` is then not read, but must be some
// address.
__device__ __forceinline__ void cp_async_16_or_zero(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
// Closes the group of the copies begun since the last one.
__device__ __forceinline__ void cp_async_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most kPending of the latest groups are still under way.
template <int kPending>
__device__ __forceinline__ void cp_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// ---- Global memory
// ------------------------------------------------------------------------------------------

// 16 bytes that are read once by this SM and never written while the kernel runs: they take no place in L1,
// and L2 fetches the other half of a 256-byte pair of lines early.
__device__ __forceinline__ uint4 load_stream_16(const void* p) {
  uint4 v;
  asm("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p));
  return v;
}
// 16 or 8 bytes that are never written while the kernel runs, or zeros where `valid` is false; `p` is then
// not read. Without a branch, which would part the lanes before the mma that follows.
__device__ __forceinline__ uint4 load_16_or_zero(const void* p, bool valid) {
  uint4 v;
  asm("{.reg .pred valid;\n"
      "setp.ne.u32 valid, %5, 0;\n"
      "mov.b32 %0, 0; mov.b32 %1, 0; mov.b32 %2, 0; mov.b32 %3, 0;\n"
      "@valid ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];}"
      : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
      : "l"(p), "r"(static_cast<uint32_t>(valid)));
  return v;
}
__device__ __forceinline__ uint2 load_8_or_zero(const void* p, bool valid) {
  uint2 v;
  asm("{.reg .pred valid;\n"
      "setp.ne.u32 valid, %3, 0;\n"
      "mov.b32 %0, 0; mov.b32 %1, 0;\n"
      "@valid ld.global.nc.v2.u32 {%0,%1}, [%2];}"
      : "=&r"(v.x), "=&r"(v.y)
      : "l"(p), "r"(static_cast<uint32_t>(valid)));
  return v;
}
// Asks for the line of `p` in L2; nothing waits for it.
__device__ __forceinline__ void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// ---- Bits and pairs
// -----------------------------------------------------------------------------------------

// (a & kAnd) | kOr in one instruction.
template <uint32_t kAnd, uint32_t kOr>
__device__ __forceinline__ uint32_t and_or(uint32_t a) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "n"(kAnd), "n"(kOr));
  return d;
}
// (a & kAnd) ^ b in one instruction.
template <uint32_t kAnd>
__device__ __forceinline__ uint32_t and_xor(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(a), "n"(kAnd), "r"(b));
  return d;
}
// Four bytes picked from the eight of {b, a} by the low three bits of the selector's low four nibbles, whose
// fourth bits must be 0: byte 0 .. 3 are a's, 4 .. 7 b's.
__device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(selector));
  return d;
}
// a · b + c of BF16 pairs, each rounded once. (The only BF16 arithmetic of sm_80. For a sum let b be ones
// that come from a kernel's parameters: ptxas builds a constant anew before every use.)
__device__ __forceinline__ uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
// Two floats as a BF16 pair, rounded to nearest even: `low` in the lower half, the lower k.
__device__ __forceinline__ uint32_t pack_bf16x2(float low, float high) {
  uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}

// 2^x within 2 ulp; exactly 1 at 0, exactly 0 at -infinity. Results below 2^-126 are 0.
__device__ __forceinline__ float exp2_approx(float x) {
  float d;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(d) : "f"(x));
  return d;
}

// threadIdx.x, read where this stands: what is computed from it is computed anew each time instead of being
// kept in registers.
__device__ __forceinline__ unsigned thread_index() {
  unsigned d;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(d));
  return d;
}

}  // namespace tramontane::cuda::ptx
