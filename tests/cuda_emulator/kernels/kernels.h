// Host functions that launch the test kernels. Pointers are device memory unless said otherwise.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace emulator_kernels {

// basic.cu
void saxpy(int n, float a, const float* x, float* y, cudaStream_t stream = nullptr);
void block_sum(const float* x, float* sum, int n);
void collatz_steps(int* steps, int n);
void softmax_rows(const float* x, float* y, int rows, int n);
void histogram(const uint8_t* x, unsigned* counts, int n);  // 256 counts
void max_of(const int* x, int* result, int n);
void add_one(int* x, int n, cudaStream_t stream = nullptr);
cudaError_t add_one_early(int* x, int n, cudaStream_t stream);  // with programmatic dependent launch
void scale_by_constant(const float* x, float* y, int n);
void set_scale(float value);                               // the __constant__ of scale_by_constant
void choose(const int* which, float* x, int n);            // a switch of eight cases
void call_functions(const float* x, float* y, int n);      // device functions that are not inlined
void struct_parameter(const int* index, int* out, int n);  // a parameter indexed at run time
void transpose(const float* x, float* y, int n);           // n: a multiple of 32
void warp_queries(const int* x, unsigned* out);            // 32 lanes; 8 results each
void barrier_reductions(const int* x, int* out, int threads);
void wide_sum(const uint64_t* a, const uint64_t* b, uint64_t* sum, int n);  // 128 bit numbers, low word first
void last_block_sum(const float* x, float* partial, unsigned* counter, float* sum, int blocks);
void producer_consumer(const int* x, int* y, int rounds);  // named barriers; 64 threads
void spin_between_warps(int* out);                         // a warp waits in a loop for another

// matrix.cu
void gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n,
               int k);  // c = a * b^T; multiples of 64, 64, 32
void gemv_fp4(const uint8_t* w, const float* absmax, const __nv_bfloat16* x, __nv_bfloat16* y, int rows,
              int k);
void mma_once(int form, const uint16_t* a, const uint16_t* b, const float* c,
              float* d);  // row-major a; b as columns
enum MmaForm { kBf16K16, kHalfK16, kBf16K8, kHalfK8 };
void ldmatrix_transposed(const uint16_t* x, uint32_t* out);  // 8x8 tile
void copy_with_zero_fill(const uint8_t* x, uint8_t* y, int source_bytes);

// numeric.cu: y[i] = op(x[i] ...), bits as they are
enum class Unary {
  kBf16ToF32,
  kHalfToF32,
  kF32ToBf16,
  kF32ToBf16Zero,
  kF32ToHalf,
  kF32ToHalfZero,
  kF32ToS32Nearest,
  kF32ToS32Zero,
  kF32ToS32Down,
  kF32ToS32Up,
  kF32ToU8Saturated,
  kF32ToU32Zero,
  kS32ToF32,
  kS32ToF32Down,
  kU32ToF32Up,
  kHalfToS16,
  kS16ToHalf,
  kS8OfU32,
  kU16OfU32,
  kU32OfU16,
  kU32ToF32,
  kRoundF32,
  kFloorF32,
  kTruncateF32,
  kSaturateF32,
  kEx2,
  kLg2,
  kRsqrt,
  kRcp,
  kSqrt,
  kSin,
  kCos,
  kTanh,
  kPopc,
  kClz,
  kBrev,
  kBfind,
  kFtzAdd,
};
void unary(Unary op, const uint32_t* x, uint32_t* y, int n);
enum class Ternary {
  kLop3,
  kPrmt,
  kBfe,
  kBfeSigned,
  kBfi,
  kFunnelLeft,
  kFunnelRight,
  kDp4a,
  kFmaDown,
  kFmaUp,
  kHalfFma,
  kBf16Fma,
  kMulHi,
  kMad,
  kPackBf16  // of a and b
};
// Conversions with 64 bits on one side or both; narrower values are the low bits, others are 0.
enum class Wide {
  kF32ToF64,
  kU32ToF64,
  kU64ToF64,
  kU64ToF32Zero,
  kS32ToS64,
  kU32ToU64,
  kU64ToU32,
  kHalfToS64,
  kHalfToU64,
  kF32ToS64,
  kF32ToU64,
  kF64ToS64,
  kF64ToU64,
  kF64ToS32,
  kF64ToU32,
  kF64ToS16,
  kF64ToU16,
};
void wide(Wide op, const uint64_t* x, uint64_t* y, int n);
void ternary(Ternary op, const uint32_t* a, const uint32_t* b, const uint32_t* c, uint32_t* d, int n);

// resources.cu
struct Resources {
  using Kernel = const void*;
  static Kernel thrifty, bounded, some_registers, many_registers,
      static_shared;  // bounded: 96 threads; shared: 20000 bytes
  static cudaError_t launch(Kernel kernel, const float* x, float* y, int threads,
                            std::size_t dynamic_shared = 0);
};

// broken.cu: every kernel has one fault, but those called fine_*
void out_of_bounds(const float* x, float* y, int n);
void misaligned(const float* x, float* y);
void plain_copy(const float* x, float* y, int n);
void shared_out_of_bounds(float* y);
void race_between_warps(const float* x, float* y);
void race_write_after_read(const float* x, float* y);
void race_in_warp(const float* x, float* y);
void fine_in_warp(const float* x, float* y);
void race_wrong_named_barrier(const float* x, float* y);
enum class Publish { kNothing, kTooEarly, kTooLate, kFence, kRelease };
void race_between_blocks(Publish how, const float* x, float* partial, unsigned* counter, float* sum);
void race_stage_overwritten(const float* x, float* y);
void divergent_barrier(float* y);
void fine_early_exit(float* y, int n);
void unequal_barriers(float* y);
void missing_barrier_in_warp(float* y);
void absent_lane(float* y);
void unwritten_shared(float* y);
void missing_copy_wait(const float* x, float* y);
void unknown_instruction(double* y);
void failing_assert(int* x);
void endless_loop(int* x);
void divide_barrier_count(int* x);

}  // namespace emulator_kernels
