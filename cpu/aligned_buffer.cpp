#include "cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>

namespace tramontane {
namespace {

constexpr size_t kAlignment = 64;              // a cache line, and a full AVX-512 vector
constexpr size_t kHugePage = size_t{2} << 20;  // the x86-64 huge page that transparent huge pages use
constexpr size_t kMapFrom = 2 * kHugePage;     // smaller buffers gain nothing from huge pages

size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

std::string gigabytes(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1 << 30));
  return text;
}

// Linux hands out addresses freely and kills the process when it writes to them, so big requests are compared
// with what there is.
size_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  size_t kilobytes = 0;
  while (file >> key >> kilobytes) {
    if (key == "MemAvailable:") return kilobytes * 1024;
    file.ignore(256, '\n');
  }
  return SIZE_MAX;
}

[[noreturn]] void out_of_memory(size_t bytes, std::string_view label) {
  const size_t available = available_memory();
  throw std::runtime_error("not enough memory for " + std::string(label) + ": " + gigabytes(bytes) +
                           " needed" +
                           (available == SIZE_MAX ? "" : ", " + gigabytes(available) + " available"));
}

Buffer allocate_small(size_t bytes, std::string_view label) {
  const size_t rounded = round_up(bytes, kAlignment);
  void* data = std::aligned_alloc(kAlignment, rounded);
  if (data == nullptr) out_of_memory(bytes, label);
  std::memset(data, 0, rounded);
  return Buffer(static_cast<std::byte*>(data), bytes, [](std::byte* memory, size_t) { std::free(memory); });
}

// Maps one huge page more than asked for and gives back the unaligned ends.
Buffer allocate_mapped(size_t bytes, std::string_view label) {
  const size_t rounded = round_up(bytes, kHugePage);
  if (rounded < bytes || rounded > available_memory()) out_of_memory(bytes, label);
  void* mapped =
      mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) out_of_memory(bytes, label);
  const auto start = reinterpret_cast<size_t>(mapped);
  const size_t aligned = round_up(start, kHugePage);
  if (aligned > start) munmap(mapped, aligned - start);
  const size_t tail = start + kHugePage - aligned;
  if (tail > 0) munmap(reinterpret_cast<void*>(aligned + rounded), tail);
  auto* data = reinterpret_cast<std::byte*>(aligned);
  madvise(data, rounded, MADV_HUGEPAGE);  // advice: failing costs speed alone
  return Buffer(data, bytes,
                [](std::byte* memory, size_t size) { munmap(memory, round_up(size, kHugePage)); });
}

}  // namespace

Buffer allocate_aligned(size_t bytes, std::string_view label) {
  if (bytes == 0) return {};
  return bytes < kMapFrom ? allocate_small(bytes, label) : allocate_mapped(bytes, label);
}

}  // namespace tramontane
