// Byte-level BPE (GPT-2 family), built from a vocabulary that the caller read, e.g. from GGUF metadata.
// Immutable, shared by all threads.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tramontane {

struct BpeVocabulary {
  std::vector<std::string> tokens;  // GPT-2's byte-to-unicode spelling
  std::vector<std::string> merges;  // "left right", best first
  std::vector<int32_t> types;       // GGUF token_type: 1 normal, 3 control, 4 user-defined, …
  std::string pre;                  // pre-tokeniser: "smollm" (digits split singly, then GPT-2's pattern)
  int32_t bos_id = -1, eos_id = -1, unk_id = -1;
  bool add_bos = false, add_space_prefix = false;
};

// Throws std::runtime_error naming what is wrong: unknown pre-tokeniser, merges that name no token, sizes
// that differ.
std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeVocabulary vocabulary);

}  // namespace tramontane
