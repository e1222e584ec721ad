// A tokenizer.model of any bytes is read or refused with std::runtime_error; one that is read encodes and
// decodes what it encoded.
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "tokenizer/sentencepiece_tokenizer.h"

using namespace tramontane;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = make_sentencepiece_tokenizer(parse_sentencepiece_model(bytes, "fuzz"), "fuzz");
    const auto ids = tokenizer->encode(bytes.substr(0, 2000));
    tokenizer->decode(ids);
    for (const int32_t id : ids) {
      if (tokenizer->is_control(id)) __builtin_trap();
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
