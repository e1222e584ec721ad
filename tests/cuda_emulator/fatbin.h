// Takes PTX and machine code out of the fat binary that nvcc puts into a host program.
#pragma once

#include <string>
#include <vector>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

struct PtxImage {
  u32 target = 0;  // sm number that it was compiled for
  std::string text;
};

// All PTX of a fat binary, given the wrapper that nvcc registers. Throws std::runtime_error for another
// format, and for a compression that this build cannot undo.
std::vector<PtxImage> ptx_of(const void* wrapper);

// The machine code (an ELF file) of the newest sm number that is not above `target`; empty when there is
// none. Throws as ptx_of does.
std::string machine_code_of(const void* wrapper, u32 target);

}  // namespace tramontane::emulator
