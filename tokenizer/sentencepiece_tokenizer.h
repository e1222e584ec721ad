// SentencePiece BPE with byte fallback, from a vocabulary or from the bytes of a model file.
//
// The SentencePiece library itself is not used to run it, for three reasons: its loader checks little of the
// file (a hostile precompiled_charsmap or piece list aborts or reads past its buffers), it has no incremental
// decoder, and the same algorithm serves vocabularies that come without a model file (GGUF). What must be
// exact is small, and FORMATS (in engine/DESIGN.md) spells it out; the tests compare it with the library on
// random texts and vocabularies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tramontane {

// Numbers as in sentencepiece_model.proto and GGUF's token_type.
enum class PieceType : int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct SentencePieceVocabulary {
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::normal;
  };
  std::vector<Piece> pieces;  // by id
  std::string bos_piece = "<s>",
              eos_piece = "</s>";              // names of control pieces; one that is absent gives id -1
  std::string unk_surface = " \xE2\x81\x87 ";  // what the unknown piece decodes to: " ⁇ "
  bool add_dummy_prefix = true;                // a space before every encoded text
  bool adds_bos = true;
};

// The ModelProto in `bytes`; `name` is what errors call it. Throws std::runtime_error: not a ModelProto, not
// BPE with byte fallback, or a normaliser that changes texts.
SentencePieceVocabulary parse_sentencepiece_model(std::string_view bytes, const std::string& name);

// Throws std::runtime_error beginning with `name`: duplicate or empty pieces, not one unknown piece, not all
// 256 byte pieces, …
std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(SentencePieceVocabulary vocabulary,
                                                              const std::string& name);

}  // namespace tramontane
