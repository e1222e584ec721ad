// Runs reduce.cuh's row_rms_scale in blocks of any size.
#include "cuda/reduce.cuh"
#include "tests/cuda/rowwise_test.h"

namespace tramontane::cuda {
namespace {

__global__ void row_scale_kernel(const float* row, int n, float eps, float* scales) {
  __shared__ float squares[kRowWarps];
  scales[threadIdx.x] = row_rms_scale(row, n, eps, squares);
}

}  // namespace

void launch_row_scale(const float* row, int n, float eps, int threads, float* scales) {
  row_scale_kernel<<<1, threads>>>(row, n, eps, scales);
}

}  // namespace tramontane::cuda
