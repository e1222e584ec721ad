#include "cuda/weight_loader.h"

#include <algorithm>
#include <span>
#include <thread>
#include <vector>

#include "cuda/check.cuh"
#include "cuda/device_buffer.h"
#include "cuda/linear.h"

namespace tramontane::cuda {
namespace {

// While one slot is copied the next is filled. 16 MiB take 0.7 ms over PCIe 4.0, long enough for a copy's
// fixed cost not to count.
constexpr int kSlots = 2;
constexpr size_t kSlotBytes = size_t{16} << 20;
// Packing is memory traffic: more threads than this do not make it faster.
constexpr unsigned kMostThreads = 8;

// Calls unit(first, last) for shares of 0..count on several threads.
template <typename Unit>
void share_out(int64_t count, const Unit& unit) {
  const int64_t threads =
      std::min<int64_t>(count, std::clamp(std::thread::hardware_concurrency(), 1u, kMostThreads));
  std::vector<std::jthread> others;
  for (int64_t i = 1; i < threads; ++i) {
    others.emplace_back([&unit, count, threads, i] { unit(count * i / threads, count * (i + 1) / threads); });
  }
  unit(int64_t{0}, count / threads);
}

}  // namespace

uint64_t device_bytes_for(const HostMatrix& matrix) {
  const PackedBytes bytes = packed_bytes(matrix);
  return device_bytes_for(bytes.codes) + (bytes.scales == 0 ? 0 : device_bytes_for(bytes.scales));
}

WeightLoader::WeightLoader() {
  CUDA_CHECK(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "the copy stream");
  CUDA_CHECK(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "the copy stream");
}

WeightLoader::~WeightLoader() {
  cudaStreamSynchronize(copies_);
  cudaEventDestroy(copied_);
  cudaStreamDestroy(copies_);
}

Matrix WeightLoader::load(const HostMatrix& matrix, std::string_view label, Stream user) {
  const PackedBytes bytes = packed_bytes(matrix);
  Matrix result{.n = matrix.n,
                .k = matrix.k,
                .dense_dtype = DType::bf16,
                .quant = matrix.quant,
                .scale_dtype = matrix.scale_dtype,
                .codes = allocate_device(bytes.codes, label),
                .scales = bytes.scales == 0 ? Buffer{} : allocate_device(bytes.scales, label),
                .biases = {}};  // they lie with the scales
  const int64_t tiles = (matrix.n + 15) / 16;
  // Every tile takes the same share of either buffer.
  const size_t codes = bytes.codes / static_cast<size_t>(tiles),
               scales = bytes.scales / static_cast<size_t>(tiles);
  StagingRing& ring = staging(codes + scales);
  const auto most = static_cast<int64_t>(ring.slot_bytes() / (codes + scales));
  for (int64_t first = 0; first < tiles; first += most) {
    const int64_t count = std::min(most, tiles - first);
    std::byte* packed_codes = ring.next().data();
    std::byte* packed_scales = packed_codes + codes * count;
    share_out(count, [&](int64_t begin, int64_t end) {
      const auto share = [&](std::byte* packed, size_t each) {
        return std::span(packed + each * begin, each * static_cast<size_t>(end - begin));
      };
      pack_row_tiles(matrix, first + begin, end - begin, share(packed_codes, codes),
                     share(packed_scales, scales));
    });
    const auto copy = [&](Buffer& to, const std::byte* packed, size_t each) {
      if (each == 0) return;
      CUDA_CHECK(
          cudaMemcpyAsync(to.data() + each * first, packed, each * count, cudaMemcpyHostToDevice, copies_),
          label);
    };
    copy(result.codes, packed_codes, codes);
    copy(result.scales, packed_scales, scales);
    ring.queued(copies_);
  }
  CUDA_CHECK(cudaEventRecord(copied_, copies_), label);
  CUDA_CHECK(cudaStreamWaitEvent(user, copied_, 0), label);
  return result;
}

StagingRing& WeightLoader::staging(size_t least) {
  if (!staging_ || staging_->slot_bytes() < least) staging_.emplace(kSlots, std::max(least, kSlotBytes));
  return *staging_;
}

}  // namespace tramontane::cuda
