// Handlers that the lowering uses by name, and marks that the executor looks for.
#pragma once

#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {

// aux of the forms of bar.
enum BarrierForm : u32 { kWait, kArrive, kPopc, kAnd, kOr };

void branch(Warp& warp, const Instruction& i, LaneMask mask);
void branch_indexed(Warp& warp, const Instruction& i, LaneMask mask);  // operand 0: index; aux: branch table
void exit_lanes(Warp& warp, const Instruction& i, LaneMask mask);
void unsupported(Warp& warp, const Instruction& i, LaneMask mask);
void assert_fail(Warp& warp, const Instruction& i, LaneMask mask);  // __assertfail's parameters
void print(Warp& warp, const Instruction& i, LaneMask mask);        // vprintf's result, then its parameters

}  // namespace tramontane::emulator
