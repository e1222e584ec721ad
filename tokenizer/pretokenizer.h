// Cuts a text into the words inside which byte-level BPE merges.
#pragma once

#include <string_view>
#include <vector>

namespace tramontane {

// "smollm", as llama.cpp names it: each number character (\p{N}) alone, and what lies between by GPT-2's
// pattern
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// `text` is valid UTF-8; the views are into it and cover it.
std::vector<std::string_view> split_smollm(std::string_view text);

}  // namespace tramontane
