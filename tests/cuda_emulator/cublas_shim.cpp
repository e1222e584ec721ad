// libcublas.so.13 beside the emulated runtime: the few entry points that the product uses, computed on the
// processor. It is strict where cuBLAS reads nonsense or fails late: leading dimensions, types, alignment,
// streams, memory.
#include <cublas_v2.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <memory>
#include <vector>

#include "tests/cuda_emulator/ops/small_float.h"

extern "C" {
int cudaEmulatorEnqueue(cudaStream_t stream, void (*work)(void*), void* data);
void* cudaEmulatorMemory(const void* pointer, std::size_t bytes, int writes, const char* what);
}

using namespace tramontane::emulator;

namespace {

struct Handle {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
};

Handle* of(cublasHandle_t handle) {
  return reinterpret_cast<Handle*>(handle);
}

// A column-major matrix as the caller gives it; `op` is applied when it is read.
struct Matrix {
  const void* data = nullptr;
  cudaDataType type = CUDA_R_16BF;
  long long leading = 0;
  long long stride = 0;  // between the matrices of a batch, in elements
  bool transposed = false;
};

struct Product {
  int m = 0, n = 0, k = 0, batch = 1;
  float alpha = 1, beta = 0;
  Matrix a, b, c;
};

std::size_t size_of(cudaDataType type) {
  return type == CUDA_R_32F ? 4 : 2;
}

bool is_known(cudaDataType type) {
  return type == CUDA_R_16BF || type == CUDA_R_16F || type == CUDA_R_32F;
}

float read(const u8* data, cudaDataType type, long long index) {
  if (type == CUDA_R_32F) return reinterpret_cast<const float*>(data)[index];
  const u16 bits = reinterpret_cast<const u16*>(data)[index];
  return type == CUDA_R_16BF ? bf16_to_f32(bits) : half_to_f32(bits);
}

void write(u8* data, cudaDataType type, long long index, float value) {
  if (type == CUDA_R_32F)
    reinterpret_cast<float*>(data)[index] = value;
  else
    reinterpret_cast<u16*>(data)[index] = type == CUDA_R_16BF ? f32_to_bf16(value) : f64_to_half(value);
}

// The matrix's columns as device memory, checked column by column: what lies between them is not the caller's
// to promise.
const u8* column_of(const Matrix& matrix, long long item, long long column, long long rows, bool writes) {
  const u8* begin =
      static_cast<const u8*>(matrix.data) +
      size_of(matrix.type) * static_cast<std::size_t>(item * matrix.stride + column * matrix.leading);
  return static_cast<const u8*>(cudaEmulatorMemory(
      begin, size_of(matrix.type) * static_cast<std::size_t>(rows), writes, "cuBLAS GEMM"));
}

// op(matrix) in rows of k: [rows][k].
std::vector<float> gather(const Matrix& matrix, long long item, int rows, int k) {
  std::vector<float> result(static_cast<std::size_t>(rows) * static_cast<std::size_t>(k));
  const int columns = matrix.transposed ? rows : k, length = matrix.transposed ? k : rows;
  for (int column = 0; column < columns; ++column) {
    const u8* data = column_of(matrix, item, column, length, false);
    for (int row = 0; row < length; ++row) {
      const std::size_t at = matrix.transposed ? static_cast<std::size_t>(column) * k + row
                                               : static_cast<std::size_t>(row) * k + column;
      result[at] = read(data, matrix.type, row);
    }
  }
  return result;
}

// Sixteen sums side by side, so that the compiler may vectorise; the order depends on k alone.
float dot(const float* a, const float* b, int k) {
  float sum[16] = {};
  int i = 0;
  for (; i + 16 <= k; i += 16)
    for (int j = 0; j < 16; ++j) sum[j] = __builtin_fmaf(a[i + j], b[i + j], sum[j]);
  for (; i < k; ++i) sum[i % 16] = __builtin_fmaf(a[i], b[i], sum[i % 16]);
  for (int half = 8; half; half /= 2)
    for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
  return sum[0];
}

void compute(const Product& p, long long item) {
  const std::vector<float> a = gather(p.a, item, p.m, p.k);
  Matrix b_rows = p.b;
  b_rows.transposed = !p.b.transposed;  // rows of n columns of op(B)
  const std::vector<float> b = gather(b_rows, item, p.n, p.k);
  for (int column = 0; column < p.n; ++column) {
    if (p.beta != 0) column_of(p.c, item, column, p.m, false);
    u8* c = const_cast<u8*>(column_of(p.c, item, column, p.m, true));
    for (int row = 0; row < p.m; ++row) {
      const float sum =
          dot(&a[static_cast<std::size_t>(row) * p.k], &b[static_cast<std::size_t>(column) * p.k], p.k);
      const float old = p.beta != 0 ? p.beta * read(c, p.c.type, row) : 0.0f;
      write(c, p.c.type, row, p.alpha * sum + old);
    }
  }
}

void run(void* data) {
  const auto* p = static_cast<const Product*>(data);
  for (int item = 0; item < p->batch; ++item) compute(*p, item);
}

cublasStatus_t refuse(cublasStatus_t status, const char* why) {
  std::fprintf(stderr, "PTX emulator: cuBLAS: %s\n", why);
  return status;
}

bool is_aligned(const Matrix& matrix) {
  return reinterpret_cast<std::uintptr_t>(matrix.data) % 16 == 0 &&
         matrix.leading * static_cast<long long>(size_of(matrix.type)) % 16 == 0;
}

cublasStatus_t check(const Product& p) {
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "negative size");
  if (p.a.leading < (p.a.transposed ? p.k : p.m))
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "lda is smaller than a column of A");
  if (p.b.leading < (p.b.transposed ? p.n : p.k))
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "ldb is smaller than a column of B");
  if (p.c.leading < p.m) return refuse(CUBLAS_STATUS_INVALID_VALUE, "ldc is smaller than a column of C");
  if (!is_known(p.a.type) || p.a.type != p.b.type)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types of A and B differ or are not BF16, F16, F32");
  if (p.c.type != p.a.type && p.c.type != CUDA_R_32F)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "C is neither F32 nor of A's type");
  if (!is_aligned(p.a) || !is_aligned(p.b) || !is_aligned(p.c))
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED,
                  "a matrix or its leading dimension is not aligned to 16 bytes: the fast kernels need it");
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t submit(cublasHandle_t handle, const Product& product, cublasComputeType_t compute_type,
                      const void* alpha, const void* beta) {
  if (!handle) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no handle");
  if (compute_type != CUBLAS_COMPUTE_32F)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only CUBLAS_COMPUTE_32F is known here");
  if (!alpha || !beta) return refuse(CUBLAS_STATUS_INVALID_VALUE, "no alpha or beta");
  auto p = std::make_shared<Product>(product);
  p->alpha = *static_cast<const float*>(alpha);
  p->beta = *static_cast<const float*>(beta);
  if (const cublasStatus_t status = check(*p); status != CUBLAS_STATUS_SUCCESS) return status;
  if (!p->m || !p->n || !p->batch) return CUBLAS_STATUS_SUCCESS;
  // Captured work runs many times: it lives as long as the process.
  static auto* products = new std::vector<std::shared_ptr<Product>>;
  products->push_back(p);
  const int error = cudaEmulatorEnqueue(of(handle)->stream, &run, p.get());
  return error ? refuse(CUBLAS_STATUS_EXECUTION_FAILED, "the stream does not take work")
               : CUBLAS_STATUS_SUCCESS;
}

Matrix matrix(const void* data, cudaDataType type, long long leading, long long stride,
              cublasOperation_t op) {
  return {data, type, leading, stride, op != CUBLAS_OP_N};
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = reinterpret_cast<cublasHandle_t>(new Handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  delete of(handle);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (cudaStreamIsCapturing(stream, std::make_unique<cudaStreamCaptureStatus>().get()) != cudaSuccess)
    return refuse(CUBLAS_STATUS_INVALID_VALUE, "no such stream");
  of(handle)->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  *stream = of(handle)->stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (!handle) return CUBLAS_STATUS_NOT_INITIALIZED;
  of(handle)->math = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void*, std::size_t) {
  return handle ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}
const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "not initialized";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "invalid value";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "execution failed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "not supported";
    default:
      return "unknown status";
  }
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m,
                            int n, int k, const void* alpha, const void* a, cudaDataType a_type, int lda,
                            const void* b, cudaDataType b_type, int ldb, const void* beta, void* c,
                            cudaDataType c_type, int ldc, cublasComputeType_t compute_type,
                            cublasGemmAlgo_t) {
  Product p{m,
            n,
            k,
            1,
            1,
            0,
            matrix(a, a_type, lda, 0, op_a),
            matrix(b, b_type, ldb, 0, op_b),
            matrix(c, c_type, ldc, 0, CUBLAS_OP_N)};
  return submit(handle, p, compute_type, alpha, beta);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k, const void* alpha,
                                          const void* a, cudaDataType a_type, int lda, long long stride_a,
                                          const void* b, cudaDataType b_type, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int batch, cublasComputeType_t compute_type,
                                          cublasGemmAlgo_t) {
  Product p{m,
            n,
            k,
            batch,
            1,
            0,
            matrix(a, a_type, lda, stride_a, op_a),
            matrix(b, b_type, ldb, stride_b, op_b),
            matrix(c, c_type, ldc, stride_c, CUBLAS_OP_N)};
  return submit(handle, p, compute_type, alpha, beta);
}

}  // extern "C"
