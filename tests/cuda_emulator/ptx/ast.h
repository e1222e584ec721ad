// PTX source as written: what the parser yields and the lowering reads.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator::ptx {

enum class Space { kNone, kRegister, kGlobal, kConst, kShared, kLocal, kParam };

struct Operand {
  enum class Kind {
    kName,     // register, variable, label or special register; `bits` is what is added to it
    kInteger,  // `bits`
    kFloat32,  // `bits`: IEEE single
    kFloat64,  // `bits`: IEEE double
    kAddress,  // [name + bits]; the name may be empty
    kVector,   // {a, b, ...}
    kList,     // (a, b, ...) of a call
    kPair,     // d|p
    kNot,      // !p
    kSink,     // _
  };
  Kind kind = Kind::kSink;
  std::string name;
  u64 bits = 0;
  std::vector<Operand> parts;
};

struct SourceLine {
  u32 file = 0;  // number of a .file directive; 0: unknown (no -lineinfo)
  u32 line = 0;
};

struct Instruction {
  std::string predicate;  // empty: unconditional
  bool negated = false;
  std::string opcode;  // with all its modifiers
  std::vector<Operand> operands;
  std::string text;  // as written, for messages
  u32 line = 0;      // in the PTX
  SourceLine source;
};

struct Initializer {
  u64 bits = 0;
  std::string symbol;  // not empty: the symbol's address is added
};

struct Variable {
  Space space = Space::kNone;
  std::string name;
  u32 align = 1;
  u32 element_size = 1;
  u64 bytes = 0;  // 0: .extern array, its size is the launch's
  bool is_extern = false;
  std::vector<Initializer> values;
};

struct Registers {
  std::string name;  // name, or prefix of name0 ... name<count-1>
  int count = -1;    // -1: a single register of that name
  u32 size = 4;      // bytes; 0: predicate
};

struct Statement {
  enum class Kind { kInstruction, kLabel, kVariable, kRegisters, kOpen, kClose, kTargets };
  Kind kind;
  std::shared_ptr<const Instruction> instruction;
  std::shared_ptr<const Variable> variable;
  Registers registers;
  std::string name;                  // label
  std::vector<std::string> targets;  // .branchtargets of that label
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool has_body = false;
  std::vector<Variable> returns;
  std::vector<Variable> parameters;
  std::vector<Statement> body;
  u32 max_threads = 1024;  // .maxntid or .reqntid
};

struct Module {
  u32 target = 0;  // sm number of .target
  std::map<u32, std::string> files;
  std::vector<std::shared_ptr<const Variable>> variables;
  std::map<std::string, Function> functions;
};

}  // namespace tramontane::emulator::ptx
