// What a SentencePiece model is made of, from whichever file it comes: pieces with scores and types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

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

// The byte that a byte piece stands for: "<0x0A>" gives 10. Nothing for any other spelling.
std::optional<unsigned char> byte_of_piece(std::string_view piece);

// The ModelProto in `bytes`; `name` is what errors call it. Throws std::runtime_error: not a ModelProto, not
// BPE with byte fallback, or a normaliser that changes texts.
SentencePieceVocabulary parse_sentencepiece_model(std::string_view bytes, const std::string& name);

// Whether the SentencePiece library can load and use these pieces safely, and text can never give a control
// piece. Throws std::runtime_error beginning with `name`: duplicate, empty or overlong pieces, not one
// unknown piece, not all 256 byte pieces, …
void check_vocabulary(const SentencePieceVocabulary& vocabulary, const std::string& name);

// A ModelProto with these pieces and what encoding needs besides: BPE, byte fallback, the identity
// normaliser. Names of BOS, EOS and how unknown pieces look stay out; only decoding knows them.
std::string serialize_sentencepiece_model(const SentencePieceVocabulary& vocabulary);

}  // namespace tramontane
