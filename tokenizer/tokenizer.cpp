#include "tokenizer/tokenizer.h"

namespace tramontane {

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  const std::unique_ptr<IncrementalDecoder> decoder = make_decoder();
  for (const int32_t id : ids) decoder->append(id, text);
  decoder->finish(text);
  return text;
}

}  // namespace tramontane
