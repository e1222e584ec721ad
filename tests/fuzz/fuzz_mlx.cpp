// Any bytes as an MLX checkpoint: the quantization block of config.json, then a safetensors file.
#include "engine/weights/mlx.h"
#include "tests/fuzz/read_weights.h"
#include "tests/fuzz/split_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tramontane;
  const SplitInput input(data, size);
  try {
    const MlxReader reader(parse_json(std::as_bytes(input.text), "config.json", false));
    read_fuzzed_weights(input.rest, reader);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
