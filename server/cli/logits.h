// `tramontane logits`: the model's raw logits for given token ids, for comparing with other programs.
#pragma once

#include <string>

#include "config/server_config.h"

namespace tramontane {

struct LogitsOptions {
  ModelOptions model;
  std::string ids;  // a JSON file: an array of token ids
  std::string out;  // a safetensors file: `logits`, F32 [number of ids, vocab_size]
};

// Returns the exit code. Throws std::runtime_error for files that cannot be read or written and ids that the
// model does not have.
int run_logits(const LogitsOptions& options);

}  // namespace tramontane
