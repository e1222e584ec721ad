// Writes small SentencePiece model files, sound and broken ones, for tests.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/sentencepiece_tokenizer.h"

namespace tramontane {

inline std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7F));
  return out + static_cast<char>(value);
}
inline std::string varint_field(uint64_t number, uint64_t value) {
  return varint(number << 3) + varint(value);
}
inline std::string bytes_field(uint64_t number, std::string_view bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
inline std::string float_field(uint64_t number, float value) {
  char bytes[4];
  std::memcpy(bytes, &value, 4);
  return varint(number << 3 | 5) + std::string(bytes, 4);
}

struct ModelBytes {
  std::vector<SentencePieceVocabulary::Piece> pieces;
  std::string trainer = varint_field(3, 2) + varint_field(35, 1);  // BPE, byte fallback
  std::string normalizer =
      bytes_field(1, "identity") + varint_field(3, 1) + varint_field(4, 0) + varint_field(5, 1);

  // <unk>, <s>, </s> and the 256 byte pieces, as real vocabularies begin.
  static ModelBytes minimal() {
    ModelBytes model;
    model.pieces = {
        {"<unk>", 0, PieceType::unknown}, {"<s>", 0, PieceType::control}, {"</s>", 0, PieceType::control}};
    constexpr char kHex[] = "0123456789ABCDEF";
    for (int byte = 0; byte < 256; ++byte) {
      model.pieces.push_back(
          {std::string("<0x") + kHex[byte >> 4] + kHex[byte & 15] + ">", 0, PieceType::byte});
    }
    return model;
  }

  std::string serialize() const {
    std::string out;
    for (const auto& piece : pieces) {
      out += bytes_field(1, bytes_field(1, piece.text) + float_field(2, piece.score) +
                                varint_field(3, static_cast<uint64_t>(piece.type)));
    }
    return out + bytes_field(2, trainer) + bytes_field(3, normalizer);
  }
};

}  // namespace tramontane
