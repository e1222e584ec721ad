// A tokenizer for tests: each id is one byte, so a test decides how a text is cut.
#pragma once

#include "tests/tokenizer/sentencepiece_model_bytes.h"

namespace tramontane {

// Ids 3..258 are the bytes 0..255; then the given pieces.
inline std::shared_ptr<const Tokenizer> byte_tokenizer(const std::vector<std::string>& pieces = {}) {
  ModelBytes model = ModelBytes::minimal();
  for (const std::string& piece : pieces) model.pieces.push_back({piece, 0, PieceType::normal});
  return make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize(), "bytes"), "bytes");
}
inline int32_t byte_id(char byte) {
  return 3 + static_cast<unsigned char>(byte);
}

}  // namespace tramontane
