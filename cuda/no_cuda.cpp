// In place of cuda_backend.cpp where the program is built without CUDA.
#include <stdexcept>

#include "cuda/cuda_backend.h"

namespace tramontane {

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions&) {
  throw std::runtime_error("this program was built without CUDA");
}

}  // namespace tramontane
