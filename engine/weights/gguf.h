// Reads GGUF files, versions 2 and 3, little-endian. Loading thread only.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

struct GgufFile {
  nlohmann::json metadata;  // key -> value, arrays included; an object
  std::vector<StoredTensor>
      tensors;  // dtype "Q4_1"; shape slowest dimension first (GGUF's own order reversed)
};

// Checks the whole header: counts, types, alignment, ranges, gaps and overlaps, duplicate names. Throws
// std::runtime_error naming file and fault.
GgufFile read_gguf(std::shared_ptr<const MappedFile> file);

}  // namespace tramontane
