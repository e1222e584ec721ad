// The tokenizer that a GGUF file's metadata describes.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "tokenizer/tokenizer.h"

namespace tramontane {

// `metadata`: an object with the file's "tokenizer.ggml.*" keys, arrays included. Supported:
// tokenizer.ggml.model "gpt2" (byte-level BPE, see bpe_tokenizer.h for its pre-tokenisers) and "llama"
// (SentencePiece BPE). Throws std::runtime_error naming the key and what is wrong.
std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const nlohmann::json& metadata);

}  // namespace tramontane
