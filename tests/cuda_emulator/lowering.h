// Lowers a parsed kernel to bytecode by the table of forms; calls of device functions are expanded in place.
#pragma once

#include <map>
#include <string>

#include "tests/cuda_emulator/program.h"
#include "tests/cuda_emulator/ptx/ast.h"

namespace tramontane::emulator {

struct GlobalVariable;

// Never fails for an unknown instruction: that becomes one that faults when it is reached, listed in
// Kernel::unsupported. Throws std::runtime_error for PTX that makes no sense (an unknown label).
Kernel lower(const ptx::Module& module, const ptx::Function& entry,
             const std::map<std::string, GlobalVariable>& globals);

}  // namespace tramontane::emulator
