// A tokenizer.model of any bytes is read or refused with std::runtime_error; one that is read encodes without
// giving a control token for text, and decodes what it encoded. The texts: the bytes of the model, and its
// pieces one after the other.
#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "tokenizer/sentencepiece_tokenizer.h"

using namespace tramontane;

namespace {

void encode_and_decode(const Tokenizer& tokenizer, const std::string& text) {
  const auto ids = tokenizer.encode(text);
  tokenizer.decode(ids);
  for (const int32_t id : ids) {
    if (tokenizer.is_control(id)) __builtin_trap();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = make_sentencepiece_tokenizer(parse_sentencepiece_model(bytes, "fuzz"), "fuzz");
    encode_and_decode(*tokenizer, bytes.substr(0, 2000));
    std::string pieces;
    // The last ones: real vocabularies begin with the byte pieces.
    for (int32_t id = tokenizer->vocab_size(); --id >= 0 && pieces.size() < 2000;)
      pieces += tokenizer->piece(id);
    encode_and_decode(*tokenizer, pieces);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
