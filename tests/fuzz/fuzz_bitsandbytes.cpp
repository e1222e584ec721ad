// Any bytes as the safetensors file of a bitsandbytes checkpoint.
#include "engine/weights/bitsandbytes.h"
#include "tests/fuzz/read_weights.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tramontane;
  try {
    read_fuzzed_weights({data, size}, read_bitsandbytes);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
