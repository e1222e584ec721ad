// `tramontane inspect`: what a checkpoint holds, without loading it into a backend.
#pragma once

#include <string>

namespace tramontane {

struct InspectOptions {
  std::string model;        // a directory or a .gguf file
  std::string dequantize;   // a tensor's name in the file; empty: print the table
  std::string out;          // where the dequantised tensor goes (safetensors, F32)
  bool json = false;        // the table as one JSON object instead of text
};

// Prints the tensor table, or writes one tensor as F32 in the file's own row order. Returns the exit code.
// Throws std::runtime_error for a checkpoint that cannot be read, an unknown tensor, or an option without its partner.
int run_inspect(const InspectOptions& options);

}  // namespace tramontane
