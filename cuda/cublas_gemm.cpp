#include "cuda/cublas_gemm.h"

#include <cublas_v2.h>
#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "cuda/device_buffer.h"
#include "cuda/device_error.h"
#include "cuda/pack.h"
#include "engine/backend/check.h"
#include "engine/backend/matrix.h"

namespace tramontane::cuda {
namespace {

// The major version is that of the CUDA runtime that the program is linked to.
constexpr const char* kLibrary = "libcublas.so.13";

// The library stays for the life of the process: others' handles may use it, and it does not unload cleanly.
void* open_library() {
  static void* const library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr)
    throw std::runtime_error(std::string("--prefill-gemm cublas: cannot load ") + kLibrary + ": " +
                             dlerror());
  return library;
}

template <typename Function>
void find(const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(open_library(), name));
  if (function == nullptr)
    throw std::runtime_error(std::string("--prefill-gemm cublas: ") + kLibrary + " has no " + name);
}

bool is_aligned(TensorView view) {
  return reinterpret_cast<uintptr_t>(view.data) % 16 == 0 &&
         view.row_stride * static_cast<int64_t>(size_of(view.dtype)) % 16 == 0;
}

// Outputs that are unpacked at once: whole row tiles.
int64_t most_outputs(int64_t k, size_t scratch_bytes) {
  const auto rows = static_cast<int64_t>(scratch_bytes / (sizeof(uint16_t) * static_cast<size_t>(k)));
  return rows / kTileRows * kTileRows;
}

int as_int(int64_t value) {
  CHECK(value >= 0 && value <= INT32_MAX, "a size that cuBLAS cannot take");
  return static_cast<int>(value);
}

}  // namespace

// The entry points that are used, and a handle.
struct CublasGemm::Library {
  decltype(&cublasCreate_v2) create = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  decltype(&cublasSetWorkspace_v2) set_workspace = nullptr;
  // Spelled out: the header has an overload of the same name.
  cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n, int k,
                         const void* alpha, const void* a, cudaDataType, int lda, const void* b, cudaDataType,
                         int ldb, const void* beta, void* c, cudaDataType, int ldc, cublasComputeType_t,
                         cublasGemmAlgo_t) = nullptr;
  decltype(&cublasGetStatusString) status_string = nullptr;
  cublasHandle_t handle = nullptr;

  explicit Library(Stream stream) {
    find("cublasCreate_v2", create);
    find("cublasDestroy_v2", destroy);
    find("cublasSetStream_v2", set_stream);
    find("cublasSetWorkspace_v2", set_workspace);
    find("cublasGemmEx", gemm);
    find("cublasGetStatusString", status_string);
    check(create(&handle), "cublasCreate", "the prefill products");
    check(set_stream(handle, stream), "cublasSetStream", "the prefill products");
  }
  ~Library() {
    if (handle != nullptr) destroy(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  void check(cublasStatus_t status, const char* call, const char* operation) const {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    throw DeviceError(std::string(call) + " for " + operation + ": " + status_string(status) + " (" +
                      std::to_string(status) + ")");
  }
};

CublasGemm::CublasGemm(Stream stream, int32_t least_rows, size_t scratch_bytes)
    : stream_(stream),
      least_rows_(least_rows),
      scratch_bytes_(scratch_bytes),
      library_(std::make_unique<Library>(stream)) {}

CublasGemm::~CublasGemm() = default;

uint64_t CublasGemm::device_bytes() const {
  return device_bytes_for(scratch_bytes_) + device_bytes_for(kCublasWorkspaceBytes);
}

void CublasGemm::reserve() {
  if (scratch_.size() != 0) return;
  scratch_ = allocate_device(scratch_bytes_, "unpacked weights");
  workspace_ = allocate_device(kCublasWorkspaceBytes, "cuBLAS workspace");
  library_->check(library_->set_workspace(library_->handle, workspace_.data(), workspace_.size()),
                  "cublasSetWorkspace", "the prefill products");
}

bool CublasGemm::takes(TensorView x, const Matrix& w, TensorView y) const {
  return x.rows >= least_rows_ && x.rows > 0 && w.n > 0 && is_aligned(x) && is_aligned(y) && w.k % 8 == 0 &&
         most_outputs(w.k, scratch_.size()) > 0;
}

void CublasGemm::multiply(TensorView x, const Matrix& w, TensorView y, bool add) {
  const int64_t most = most_outputs(w.k, scratch_.size());
  // Parts of equal size, for the last one to fill the GPU as well.
  const int64_t parts = (w.n + most - 1) / most;
  const int64_t tiles = ((w.n + parts - 1) / parts + kTileRows - 1) / kTileRows;
  const float one = 1, beta = add ? 1.0f : 0.0f;
  for (int64_t first = 0; first < w.n; first += tiles * kTileRows) {
    const int64_t count = std::min<int64_t>(tiles * kTileRows, w.n - first);
    launch_unpack(stream_, w, first, scratch_.view(DType::bf16, count, w.k));
    // cuBLAS is column-major: what it calls C is y^T [N,T], A is the rows of w, transposed, B is x^T.
    library_->check(library_->gemm(library_->handle, CUBLAS_OP_T, CUBLAS_OP_N, as_int(count), as_int(x.rows),
                                   as_int(w.k), &one, scratch_.data(), CUDA_R_16BF, as_int(w.k), x.data,
                                   CUDA_R_16BF, as_int(x.row_stride), &beta, y.row<float>(0) + first,
                                   CUDA_R_32F, as_int(y.row_stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                    "cublasGemmEx", add ? "linear_add" : "linear");
  }
}

}  // namespace tramontane::cuda
