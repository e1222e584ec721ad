#include "cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace tramontane {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMappedFrom = size_t{2} << 20;  // one x86 huge page

void release_heap(std::byte* data, size_t) {
  std::free(data);
}
void release_mapping(std::byte* data, size_t size) {
  munmap(data, size);
}

std::byte* allocate_heap(size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* data = std::aligned_alloc(kAlignment, rounded);
  if (data != nullptr) std::memset(data, 0, rounded);
  return static_cast<std::byte*>(data);
}

std::byte* allocate_mapping(size_t bytes) {
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  madvise(data, bytes, MADV_HUGEPAGE);  // advice: without it the same bytes cost more TLB misses
  return static_cast<std::byte*>(data);
}

}  // namespace

Buffer allocate_aligned(size_t bytes, std::string_view label) {
  if (bytes == 0) return {};
  const bool mapped = bytes >= kMappedFrom;
  std::byte* data = nullptr;
  if (bytes <= static_cast<size_t>(std::numeric_limits<ptrdiff_t>::max()))
    data = mapped ? allocate_mapping(bytes) : allocate_heap(bytes);
  if (data == nullptr)
    throw std::runtime_error("not enough memory for " + std::string(label) + ": " + std::to_string(bytes) +
                             " bytes refused");
  return {data, bytes, mapped ? release_mapping : release_heap};
}

}  // namespace tramontane
