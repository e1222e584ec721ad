// A kernel lowered to bytecode: each instruction has a handler that performs it for the lanes of one warp.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda_emulator/ptx/ast.h"
#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

struct Warp;
struct Instruction;
using Handler = void (*)(Warp&, const Instruction&, LaneMask);

// Where an operand's 32 lanes lie: among the warp's registers, or among the kernel's constants.
class Operand {
 public:
  enum Pool : u32 { kRegisters = 0, kConstants = 1, kNothing = 2 };
  Operand() = default;
  Operand(Pool pool, u32 offset) : value_(static_cast<u32>(pool) << 30 | offset) {}
  Pool pool() const { return static_cast<Pool>(value_ >> 30); }
  u32 offset() const { return value_ & 0x3fffffff; }
  bool exists() const { return pool() != kNothing; }

 private:
  u32 value_ = static_cast<u32>(kNothing) << 30;
};

struct Instruction {
  Handler handler = nullptr;
  s32 predicate = -1;  // byte offset of the predicate among the registers; -1: none
  bool negated = false;
  ptx::Space space = ptx::Space::kNone;
  bool strong = false;       // a volatile, relaxed, acquire or release access
  bool wide_address = true;  // the address register has 64 bits
  u8 count = 0;              // operands in use
  u32 aux = 0;               // the form's own
  u32 target = 0;            // of a branch
  u32 index = 0;             // in the kernel's code
  s64 immediate = 0;         // address offset, or the form's plain number
  s64 immediate2 = 0;        // offset of the second address
  std::array<Operand, 14> operands;
};

enum class Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNWarpId,
  kLaneMaskEq,
  kLaneMaskLt,
  kLaneMaskLe,
  kLaneMaskGt,
  kLaneMaskGe,
  kSmId,
  kNSmId,
  kGridId,
  kDynamicSharedSize,
  kTotalSharedSize,
  kClock,
  kClock64,
  kGlobalTimer,
};

struct Parameter {
  u32 offset;
  u32 bytes;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<std::shared_ptr<const ptx::Instruction>> origin;  // of each instruction; may be null
  std::vector<std::vector<u32>> branch_tables;                  // of brx.idx
  std::vector<u8> constants;                      // 32 lanes each, 64-byte aligned by whoever runs it
  std::vector<std::pair<Special, u32>> specials;  // special register, its byte offset
  std::vector<Parameter> parameters;
  std::vector<std::string> unsupported;  // instructions without a form: they fault when they are reached
  std::map<u32, std::string> files;
  u32 parameter_bytes = 0;
  u32 register_bytes = 0;  // of one warp
  u32 static_shared = 0;   // bytes; dynamic shared memory begins here
  u32 local_bytes = 0;     // of one lane
  u32 max_threads = 1024;
};

// A kernel's name as C++ spells it.
std::string demangled(const std::string& name);

// "file.cu:12" of an instruction (PTX line when the file was compiled without -lineinfo), then the
// instruction as written.
std::string describe(const Kernel& kernel, const Instruction& instruction);

}  // namespace tramontane::emulator
