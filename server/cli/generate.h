// `tramontane generate`: one prompt, answered on the terminal as it is computed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/server_config.h"

namespace tramontane {

struct GenerateOptions {
  GenerateOptions() { model.max_sequences = 1; }  // one prompt: no memory for neighbours

  ModelOptions model;
  std::string prompt;      // "-": standard input
  std::string system;      // a system message; empty: none
  bool raw = false;        // the prompt as it is, without chat template
  int32_t max_tokens = 0;  // 0: what is left of the context
  std::optional<float> temperature, top_p, min_p,
      repetition_penalty;  // without them the checkpoint's, else 1, 1, 0, 1
  std::optional<int32_t> top_k;
  std::optional<uint64_t> seed;  // without one a fresh seed
  std::vector<std::string> stop;
  bool ignore_eos = false;
};

// The answer goes to standard output and nothing else does; figures go to standard error. SIGINT ends the
// answer. Returns the exit code. Throws std::runtime_error or RequestError when the model cannot be loaded or
// the prompt not be answered.
int run_generate(const GenerateOptions& options);

}  // namespace tramontane
