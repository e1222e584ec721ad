// Any bytes as a GGUF checkpoint: opened and every weight converted, or refused with a std::runtime_error.
#include <stdexcept>

#include "engine/weights/checkpoint.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tramontane;
  const MemoryFile file(data, size);
  try {
    const auto checkpoint = Checkpoint::open(file.path());
    for (const TensorInfo& tensor : checkpoint->tensors()) checkpoint->dequantize(tensor.name);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
