// SentencePiece BPE with byte fallback, from a vocabulary or from the bytes of a model file.
//
// Encoding is the SentencePiece library's. What it loads is never the file itself, but a ModelProto that
// serialize_sentencepiece_model writes from the checked vocabulary: the library's loader checks little (a
// hostile character map or piece list aborts it or makes it read past its buffers), so fields that encoding
// does not need never reach it; and vocabularies that come without a model file (GGUF) are served the same
// way. Decoding is ours, because the library has no incremental decoder; the tests compare it with the
// library's decoder of whole texts.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/sentencepiece_vocabulary.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

// Throws std::runtime_error beginning with `name`: a fault that check_vocabulary finds.
std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(SentencePieceVocabulary vocabulary,
                                                              const std::string& name);

}  // namespace tramontane
