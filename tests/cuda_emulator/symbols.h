// Names of a kernel while it is lowered: registers, variables and labels by scope, special registers,
// constants.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>

#include "tests/cuda_emulator/program.h"
#include "tests/cuda_emulator/ptx/ast.h"

namespace tramontane::emulator {

struct GlobalVariable;

struct Symbol {
  enum class Kind { kRegister, kAddress };
  Kind kind = Kind::kRegister;
  Operand operand;  // of a register
  u32 size = 0;     // of a register, in bytes; 0: predicate
  ptx::Space space = ptx::Space::kNone;
  u64 address = 0;  // in that space
};

// Scopes are the braces of PTX; a device function expanded in place begins a new root.
class Symbols {
 public:
  Symbols(const ptx::Module& module, const std::map<std::string, GlobalVariable>& globals, Kernel& kernel);

  // Gives all static shared variables that `function` and what it calls name their place. Comes first:
  // dynamic shared memory begins behind them.
  void place_shared(const ptx::Function& function);

  int open(bool root);
  void close();
  int scope() const { return current_; }
  void declare(const ptx::Registers& registers);
  void declare(const ptx::Variable& variable);
  void bind(const std::string& name, const Symbol& symbol) {
    scopes_[static_cast<std::size_t>(current_)].symbols[name] = symbol;
  }
  void set_label(const std::string& name, u32 position);
  void set_targets(const std::string& name, const std::vector<std::string>& targets);

  std::optional<Symbol> find(const std::string& name);
  std::optional<u32> label(const std::string& name, int scope) const;
  const std::vector<std::string>* targets(const std::string& name) const;

  Operand new_register(u32 size);
  Operand constant(u64 bits, u32 size);
  u64 new_local(u64 bytes, u32 align);

 private:
  struct Scope {
    int parent;
    std::map<std::string, Symbol> symbols;
    std::map<std::string, u32> labels;
    std::map<std::string, std::vector<std::string>> targets;
  };

  std::optional<Symbol> special(const std::string& name);
  std::optional<Symbol> module_symbol(const std::string& name) const;
  void place(const ptx::Variable& variable);

  const ptx::Module& module_;
  const std::map<std::string, GlobalVariable>& globals_;
  Kernel& kernel_;
  std::deque<Scope> scopes_;
  int current_ = -1;
  std::map<const ptx::Variable*, u32> shared_;
  std::map<std::string, const ptx::Variable*> module_shared_;
  std::map<std::string, Symbol> specials_;
  std::map<std::pair<u32, u64>, Operand> constants_;
};

}  // namespace tramontane::emulator
