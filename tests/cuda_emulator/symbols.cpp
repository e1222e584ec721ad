#include "tests/cuda_emulator/symbols.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>

#include "tests/cuda_emulator/module.h"

namespace tramontane::emulator {
namespace {

constexpr u32 kSharedAlignment = 16;

u64 align_up(u64 value, u64 alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

const std::map<std::string, Special>& special_names() {
  static const std::map<std::string, Special> names = {{"%tid.x", Special::kTidX},
                                                       {"%tid.y", Special::kTidY},
                                                       {"%tid.z", Special::kTidZ},
                                                       {"%ntid.x", Special::kNtidX},
                                                       {"%ntid.y", Special::kNtidY},
                                                       {"%ntid.z", Special::kNtidZ},
                                                       {"%ctaid.x", Special::kCtaidX},
                                                       {"%ctaid.y", Special::kCtaidY},
                                                       {"%ctaid.z", Special::kCtaidZ},
                                                       {"%nctaid.x", Special::kNctaidX},
                                                       {"%nctaid.y", Special::kNctaidY},
                                                       {"%nctaid.z", Special::kNctaidZ},
                                                       {"%laneid", Special::kLaneId},
                                                       {"%warpid", Special::kWarpId},
                                                       {"%nwarpid", Special::kNWarpId},
                                                       {"%lanemask_eq", Special::kLaneMaskEq},
                                                       {"%lanemask_lt", Special::kLaneMaskLt},
                                                       {"%lanemask_le", Special::kLaneMaskLe},
                                                       {"%lanemask_gt", Special::kLaneMaskGt},
                                                       {"%lanemask_ge", Special::kLaneMaskGe},
                                                       {"%smid", Special::kSmId},
                                                       {"%nsmid", Special::kNSmId},
                                                       {"%gridid", Special::kGridId},
                                                       {"%dynamic_smem_size", Special::kDynamicSharedSize},
                                                       {"%total_smem_size", Special::kTotalSharedSize},
                                                       {"%clock", Special::kClock},
                                                       {"%clock64", Special::kClock64},
                                                       {"%globaltimer", Special::kGlobalTimer}};
  return names;
}

void collect_names(const ptx::Operand& operand, std::set<std::string>& names) {
  if (!operand.name.empty()) names.insert(operand.name);
  for (const ptx::Operand& part : operand.parts) collect_names(part, names);
}

// Every name in the instructions of a function and of the functions that it calls; the variables declared in
// them.
void collect(const ptx::Module& module, const ptx::Function& function, std::set<const ptx::Function*>& seen,
             std::set<std::string>& names, std::vector<const ptx::Variable*>& variables) {
  if (!seen.insert(&function).second) return;
  std::set<std::string> own;
  for (const ptx::Statement& statement : function.body) {
    if (statement.instruction)
      for (const ptx::Operand& operand : statement.instruction->operands) collect_names(operand, own);
    if (statement.variable && statement.variable->space == ptx::Space::kShared)
      variables.push_back(statement.variable.get());
  }
  names.insert(own.begin(), own.end());
  for (const std::string& name : own)
    if (const auto callee = module.functions.find(name); callee != module.functions.end())
      collect(module, callee->second, seen, names, variables);
}

}  // namespace

Symbols::Symbols(const ptx::Module& module, const std::map<std::string, GlobalVariable>& globals,
                 Kernel& kernel)
    : module_(module), globals_(globals), kernel_(kernel) {
  for (const auto& variable : module.variables)
    if (variable->space == ptx::Space::kShared) module_shared_[variable->name] = variable.get();
}

void Symbols::place_shared(const ptx::Function& function) {
  std::set<const ptx::Function*> seen;
  std::set<std::string> names;
  std::vector<const ptx::Variable*> variables;
  collect(module_, function, seen, names, variables);
  for (const auto& [name, variable] : module_shared_)
    if (names.contains(name)) variables.push_back(variable);
  bool dynamic = false;
  for (const ptx::Variable* variable : variables) {
    if (variable->is_extern || variable->bytes == 0)
      dynamic = true;
    else
      place(*variable);
  }
  if (dynamic) kernel_.static_shared = static_cast<u32>(align_up(kernel_.static_shared, kSharedAlignment));
}

void Symbols::place(const ptx::Variable& variable) {
  const u64 at = align_up(kernel_.static_shared, variable.align);
  shared_[&variable] = static_cast<u32>(at);
  kernel_.static_shared = static_cast<u32>(at + variable.bytes);
}

int Symbols::open(bool root) {
  scopes_.push_back({root ? -1 - current_ - 1 : current_, {}, {}, {}});
  current_ = static_cast<int>(scopes_.size()) - 1;
  return current_;
}

// The parent of a root is kept negated: names are not looked up in it.
void Symbols::close() {
  const int parent = scopes_[static_cast<std::size_t>(current_)].parent;
  current_ = parent >= 0 ? parent : -2 - parent;
}

void Symbols::declare(const ptx::Registers& registers) {
  for (int k = 0; k < std::max(registers.count, 1); ++k) {
    const std::string name = registers.count < 0 ? registers.name : registers.name + std::to_string(k);
    bind(name,
         {Symbol::Kind::kRegister, new_register(registers.size), registers.size, ptx::Space::kRegister, 0});
  }
}

void Symbols::declare(const ptx::Variable& variable) {
  Symbol symbol{Symbol::Kind::kAddress, {}, 0, variable.space, 0};
  if (variable.space == ptx::Space::kShared) {
    symbol.address = variable.bytes ? shared_.at(&variable) : kernel_.static_shared;
  } else if (variable.space == ptx::Space::kLocal || variable.space == ptx::Space::kParam) {
    symbol.space = ptx::Space::kLocal;  // parameters of calls lie in local memory
    symbol.address = new_local(variable.bytes, variable.align);
  } else {
    throw std::runtime_error("PTX variable " + variable.name +
                             " in a function, in a space that the emulator does not know there");
  }
  bind(variable.name, symbol);
}

void Symbols::set_label(const std::string& name, u32 position) {
  scopes_[static_cast<std::size_t>(current_)].labels[name] = position;
}

void Symbols::set_targets(const std::string& name, const std::vector<std::string>& targets) {
  scopes_[static_cast<std::size_t>(current_)].targets[name] = targets;
}

std::optional<Symbol> Symbols::find(const std::string& name) {
  for (int k = current_; k >= 0; k = scopes_[static_cast<std::size_t>(k)].parent) {
    const auto& symbols = scopes_[static_cast<std::size_t>(k)].symbols;
    if (const auto it = symbols.find(name); it != symbols.end()) return it->second;
  }
  if (auto symbol = special(name)) return symbol;
  return module_symbol(name);
}

std::optional<Symbol> Symbols::special(const std::string& name) {
  if (const auto known = specials_.find(name); known != specials_.end()) return known->second;
  const auto it = special_names().find(name);
  if (it == special_names().end()) return {};
  const Special s = it->second;
  const u32 size = s == Special::kClock64 || s == Special::kGlobalTimer || s == Special::kGridId ? 8 : 4;
  const Operand operand = new_register(size);
  kernel_.specials.emplace_back(s, operand.offset());
  return specials_[name] = {Symbol::Kind::kRegister, operand, size, ptx::Space::kRegister, 0};
}

std::optional<Symbol> Symbols::module_symbol(const std::string& name) const {
  if (const auto global = globals_.find(name); global != globals_.end())
    return Symbol{Symbol::Kind::kAddress, {}, 0, ptx::Space::kGlobal, global->second.address};
  const auto shared = module_shared_.find(name);
  if (shared == module_shared_.end()) return {};
  const auto placed = shared_.find(shared->second);
  return Symbol{Symbol::Kind::kAddress,
                {},
                0,
                ptx::Space::kShared,
                placed == shared_.end() ? kernel_.static_shared : placed->second};
}

std::optional<u32> Symbols::label(const std::string& name, int scope) const {
  for (int k = scope; k >= 0; k = scopes_[static_cast<std::size_t>(k)].parent) {
    const auto& labels = scopes_[static_cast<std::size_t>(k)].labels;
    if (const auto it = labels.find(name); it != labels.end()) return it->second;
  }
  return {};
}

const std::vector<std::string>* Symbols::targets(const std::string& name) const {
  for (int k = current_; k >= 0; k = scopes_[static_cast<std::size_t>(k)].parent) {
    const auto& targets = scopes_[static_cast<std::size_t>(k)].targets;
    if (const auto it = targets.find(name); it != targets.end()) return &it->second;
  }
  return nullptr;
}

Operand Symbols::new_register(u32 size) {
  const u32 bytes = size ? size * kLanes : 4;
  kernel_.register_bytes = static_cast<u32>(align_up(kernel_.register_bytes, size ? 64 : 4));
  const Operand operand(Operand::kRegisters, kernel_.register_bytes);
  kernel_.register_bytes += bytes;
  return operand;
}

Operand Symbols::constant(u64 bits, u32 size) {
  if (size < 8) bits &= (1ull << 8 * size) - 1;
  const auto [it, is_new] = constants_.try_emplace({size, bits});
  if (is_new) {
    const std::size_t offset = align_up(kernel_.constants.size(), 64);
    kernel_.constants.resize(offset + std::size_t{size} * kLanes);
    for (u32 lane = 0; lane < kLanes; ++lane)
      std::memcpy(&kernel_.constants[offset + lane * size], &bits, size);
    it->second = Operand(Operand::kConstants, static_cast<u32>(offset));
  }
  return it->second;
}

u64 Symbols::new_local(u64 bytes, u32 align) {
  const u64 at = align_up(kernel_.local_bytes, std::max(align, 8u));
  kernel_.local_bytes = static_cast<u32>(align_up(at + bytes, 16));
  return at;
}

}  // namespace tramontane::emulator
