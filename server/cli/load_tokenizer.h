// A tokenizer alone, without a model around it.
#pragma once

#include <memory>
#include <string>

#include "engine/weights/checkpoint.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

// `path`: a SentencePiece model file, a .gguf file (told by its first bytes), or a directory with
// tokenizer.model.v3, tokenizer.model, another tokenizer.model.v* or one .gguf. Throws std::runtime_error
// with one line naming file and fault.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path);

// A checkpoint's own; null where it has none. Throws like load_tokenizer.
std::shared_ptr<const Tokenizer> own_tokenizer(const TokenizerSource& source);

}  // namespace tramontane
