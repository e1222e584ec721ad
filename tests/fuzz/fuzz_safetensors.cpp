// Any bytes as a safetensors file: read or refused with a std::runtime_error, nothing else. What is read
// stays inside the file.
#include <stdexcept>

#include "engine/weights/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tramontane;
  const MemoryFile file(data, size);
  try {
    const auto mapped = MappedFile::open(file.path());
    unsigned sum = 0;
    for (const StoredTensor& tensor : read_safetensors(mapped).tensors) {
      if (tensor.bytes.empty()) continue;
      sum += std::to_integer<unsigned>(tensor.bytes.front()) + std::to_integer<unsigned>(tensor.bytes.back());
    }
    if (sum == ~0u) std::abort();  // keeps the reads
  } catch (const std::runtime_error&) {
  }
  return 0;
}
