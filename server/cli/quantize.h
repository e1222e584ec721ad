// `tramontane quantize`: writes a checkpoint in bitsandbytes' or MLX's format.
#pragma once

#include <string>

namespace tramontane {

struct QuantizeCommandOptions {
  std::string model;  // a directory or a .gguf file
  std::string to;     // fp4, nf4, q8, q6, q4, q3, bf16
  int group = 64;
  int threads = 0;  // 0: one per core
  std::string out;  // a folder that does not exist yet
};

// Shows progress on standard error and returns the exit code; SIGINT and SIGTERM remove what was written and
// give 128 + signal. Throws std::runtime_error with one line for everything that cannot be done.
int run_quantize(const QuantizeCommandOptions& options);

}  // namespace tramontane
