// Parses a PTX module.
#pragma once

#include <string_view>

#include "tests/cuda_emulator/ptx/ast.h"

namespace tramontane::emulator::ptx {

// Parses one PTX module (any version: opcodes are not looked at here). Throws std::runtime_error with the PTX
// line.
Module parse(std::string_view source);

// Bytes of a PTX type name without its dot ("u32", "bf16x2", ...); 0 for "pred", -1 for anything else.
int type_size(std::string_view type);

}  // namespace tramontane::emulator::ptx
