// What ptxas says beside the machine code that it made of the PTX, which the emulator does not run.
#pragma once

#include <map>
#include <string>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

// The registers that a thread of each kernel takes, by the kernel's (mangled) name, out of an ELF file of
// machine code. Nothing for a file that cannot be read.
std::map<std::string, u32> registers_of(const std::string& elf);

}  // namespace tramontane::emulator
