#include "tests/cuda_emulator/lowering.h"

#include <algorithm>
#include <stdexcept>

#include "tests/cuda_emulator/module.h"
#include "tests/cuda_emulator/operand_binder.h"
#include "tests/cuda_emulator/ops/control.h"
#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ptx/parser.h"
#include "tests/cuda_emulator/symbols.h"

namespace tramontane::emulator {
namespace {

using ptx::Space;
using Kind = ptx::Operand::Kind;

Space space_in(const std::string& opcode) {
  for (const auto& [name, space] :
       {std::pair{".shared", Space::kShared}, {".local", Space::kLocal}, {".param", Space::kParam}})
    if (opcode.find(name) != opcode.npos) return space;
  return Space::kGlobal;
}

bool has(const std::string& opcode, std::initializer_list<const char*> modifiers) {
  return std::any_of(modifiers.begin(), modifiers.end(),
                     [&](const char* modifier) { return opcode.find(modifier) != opcode.npos; });
}

// Stores and atomics that publish what came before them, to more than their own block.
bool releases(const std::string& opcode) {
  return !opcode.starts_with("fence") && has(opcode, {".release", ".acq_rel"}) &&
         has(opcode, {".gpu", ".sys"});
}
bool is_strong(const std::string& opcode) {
  return has(opcode, {".volatile", ".relaxed", ".acquire", ".release"});
}

class Lowering {
 public:
  Lowering(const ptx::Module& module, const ptx::Function& entry,
           const std::map<std::string, GlobalVariable>& globals)
      : module_(module),
        entry_(entry),
        symbols_(module, globals, kernel_),
        binder_(symbols_, [this](Handler handler) -> Instruction& { return emit(handler); }) {}

  Kernel run() {
    kernel_.name = entry_.name;
    kernel_.files = module_.files;
    kernel_.max_threads = entry_.max_threads;
    symbols_.place_shared(entry_);
    symbols_.open(true);
    for (const ptx::Variable& parameter : entry_.parameters) declare_parameter(parameter);
    body(entry_);
    origin_ = nullptr;
    emit(&exit_lanes);
    resolve_branches();
    kernel_.register_bytes = (kernel_.register_bytes + 63) / 64 * 64;
    return std::move(kernel_);
  }

 private:
  struct Branch {
    u32 position;
    int scope;
    std::string label;
  };
  struct Table {
    u32 number;
    int scope;
    std::vector<std::string> labels;
  };

  void declare_parameter(const ptx::Variable& parameter) {
    const u32 at = (kernel_.parameter_bytes + parameter.align - 1) / parameter.align * parameter.align;
    kernel_.parameters.push_back({at, static_cast<u32>(parameter.bytes)});
    kernel_.parameter_bytes = at + static_cast<u32>(parameter.bytes);
    symbols_.bind(parameter.name, {Symbol::Kind::kAddress, {}, 0, Space::kParam, at});
  }

  void body(const ptx::Function& function) {
    for (const ptx::Statement& statement : function.body) {
      using StatementKind = ptx::Statement::Kind;
      switch (statement.kind) {
        case StatementKind::kOpen:
          symbols_.open(false);
          break;
        case StatementKind::kClose:
          symbols_.close();
          break;
        case StatementKind::kRegisters:
          symbols_.declare(statement.registers);
          break;
        case StatementKind::kVariable:
          symbols_.declare(*statement.variable);
          break;
        case StatementKind::kLabel:
          symbols_.set_label(statement.name, position());
          break;
        case StatementKind::kTargets:
          symbols_.set_targets(statement.name, statement.targets);
          break;
        case StatementKind::kInstruction:
          instruction(statement.instruction);
          break;
      }
    }
  }

  u32 position() const { return static_cast<u32>(kernel_.code.size()); }

  Instruction& emit(Handler handler) {
    Instruction i;
    i.handler = handler;
    i.index = position();
    kernel_.origin.push_back(origin_);
    return kernel_.code.emplace_back(i);
  }

  void set_predicate(Instruction& i, const ptx::Instruction& source) {
    if (source.predicate.empty()) return;
    const auto symbol = symbols_.find(source.predicate);
    if (!symbol || symbol->kind != Symbol::Kind::kRegister || symbol->size)
      throw Unsupported("unknown predicate " + source.predicate);
    i.predicate = static_cast<s32>(symbol->operand.offset());
    i.negated = source.negated;
  }

  void instruction(const std::shared_ptr<const ptx::Instruction>& source) {
    origin_ = source;
    const u32 begin = position();
    try {
      known_instruction(*source);
    } catch (const Unsupported& error) {
      kernel_.code.resize(begin);
      kernel_.origin.resize(begin);
      Instruction& i = emit(&unsupported);
      set_predicate(i, *source);
      kernel_.unsupported.push_back(describe(kernel_, i) + " (" + error.what() + ")");
    }
  }

  void known_instruction(const ptx::Instruction& source) {
    const std::string opcode = canonical_opcode(source.opcode);
    if (opcode == "bra") return jump(source);
    if (opcode == "brx.idx") return jump_indexed(source);
    if (opcode == "call") return call(source);
    if (opcode == "exit" || (opcode == "ret" && returns_.empty()))
      return set_predicate(emit(&exit_lanes), source);
    if (opcode == "ret") return jump_to_end(source);
    if (opcode.starts_with("mov.") && pack_or_unpack(source, opcode)) return;
    by_form(source, opcode);
  }

  void jump(const ptx::Instruction& source) {
    if (source.operands.size() != 1) throw Unsupported("branch without a label");
    set_predicate(emit(&branch), source);
    branches_.push_back({position() - 1, symbols_.scope(), source.operands[0].name});
  }

  void jump_indexed(const ptx::Instruction& source) {
    if (source.operands.size() != 2) throw Unsupported("operands of brx.idx");
    const auto* labels = symbols_.targets(source.operands[1].name);
    if (!labels) throw Unsupported("no .branchtargets " + source.operands[1].name);
    const Operand index = binder_.value(source.operands[0], '4');
    Instruction& i = emit(&branch_indexed);
    set_predicate(i, source);
    i.operands[0] = index;
    i.count = 1;
    i.aux = static_cast<u32>(kernel_.branch_tables.size());
    kernel_.branch_tables.emplace_back();
    tables_.push_back({i.aux, symbols_.scope(), *labels});
  }

  // Return from a function expanded in place: to where its expansion ends.
  void jump_to_end(const ptx::Instruction& source) {
    set_predicate(emit(&branch), source);
    returns_.back().push_back(position() - 1);
  }

  void resolve_branches() {
    const auto find = [&](const std::string& label, int scope) {
      const auto at = symbols_.label(label, scope);
      if (!at) throw std::runtime_error("PTX function " + entry_.name + ": unknown label " + label);
      return *at;
    };
    for (const Branch& b : branches_) kernel_.code[b.position].target = find(b.label, b.scope);
    for (const Table& table : tables_)
      for (const std::string& label : table.labels)
        kernel_.branch_tables[table.number].push_back(find(label, table.scope));
  }

  // call (result), name, (parameters);
  void call(const ptx::Instruction& source) {
    std::size_t next = 0;
    std::vector<ptx::Operand> results, parameters;
    if (next < source.operands.size() && source.operands[next].kind == Kind::kList)
      results = source.operands[next++].parts;
    if (next >= source.operands.size() || source.operands[next].kind != Kind::kName)
      throw Unsupported("call of no name");
    const std::string name = source.operands[next++].name;
    if (next < source.operands.size() && source.operands[next].kind == Kind::kList)
      parameters = source.operands[next++].parts;
    if (next != source.operands.size()) throw Unsupported("indirect call");
    // A conditional call is a branch around the expansion.
    std::optional<u32> around;
    if (!source.predicate.empty()) {
      Instruction& i = emit(&branch);
      set_predicate(i, source);
      i.negated = !i.negated;
      around = position() - 1;
    }
    if (name == "vprintf" || name == "__assertfail")
      call_runtime(name, results, parameters);
    else
      expand(name, results, parameters);
    if (around) kernel_.code[*around].target = position();
  }

  Symbol local_variable(const ptx::Operand& operand) {
    const auto symbol = symbols_.find(operand.name);
    if (!symbol || symbol->kind != Symbol::Kind::kAddress) throw Unsupported("call with " + operand.name);
    return *symbol;
  }

  void call_runtime(const std::string& name, const std::vector<ptx::Operand>& results,
                    const std::vector<ptx::Operand>& parameters) {
    Instruction i;
    u8 at = 1;
    if (!results.empty()) i.operands[0] = symbols_.constant(local_variable(results[0]).address, 8);
    for (const ptx::Operand& parameter : parameters)
      i.operands[at++] = symbols_.constant(local_variable(parameter).address, 8);
    Instruction& emitted = emit(name == "vprintf" ? &print : &assert_fail);
    emitted.operands = i.operands;
    emitted.count = at;
  }

  void expand(const std::string& name, const std::vector<ptx::Operand>& results,
              const std::vector<ptx::Operand>& parameters) {
    const auto found = module_.functions.find(name);
    if (found == module_.functions.end() || !found->second.has_body)
      throw Unsupported("call of unknown function " + name);
    const ptx::Function& function = found->second;
    if (results.size() != function.returns.size() || parameters.size() != function.parameters.size())
      throw Unsupported("call of " + name + " with other parameters than declared");
    if (returns_.size() >= 32) throw Unsupported("recursion in " + name);
    std::vector<std::pair<std::string, Symbol>> bound;
    for (std::size_t k = 0; k < results.size(); ++k)
      bound.emplace_back(function.returns[k].name, local_variable(results[k]));
    for (std::size_t k = 0; k < parameters.size(); ++k)
      bound.emplace_back(function.parameters[k].name, local_variable(parameters[k]));
    const int outer = symbols_.scope();
    const auto call_site = origin_;
    symbols_.open(true);
    for (const auto& [formal, symbol] : bound) symbols_.bind(formal, symbol);
    returns_.emplace_back();
    body(function);
    for (const u32 at : returns_.back()) kernel_.code[at].target = position();
    returns_.pop_back();
    symbols_.close();
    if (symbols_.scope() != outer) throw std::logic_error("scopes of an expanded function");
    origin_ = call_site;
  }

  // mov.b64 d, {a, b} and mov.b64 {a, b}, d
  bool pack_or_unpack(const ptx::Instruction& source, const std::string& opcode) {
    if (source.operands.size() != 2) return false;
    const bool unpacks = source.operands[0].kind == Kind::kVector,
               packs = source.operands[1].kind == Kind::kVector;
    if (!unpacks && !packs) return false;
    const std::string bits = opcode.substr(opcode.size() - 2);
    const std::size_t count = source.operands[unpacks ? 0 : 1].parts.size();
    by_form(source, (unpacks ? "mov.unpack.b" : "mov.pack.b") + bits + "." + std::to_string(count));
    return true;
  }

  void by_form(const ptx::Instruction& source, const std::string& opcode) {
    const Form* form = FormTable::instance().find(opcode);
    if (!form) throw Unsupported("no form " + opcode);
    if (releases(source.opcode))
      set_predicate(emit(FormTable::instance().find("fence.acq_rel.gpu")->handler), source);
    Instruction bound;
    bound.strong = is_strong(source.opcode);
    bound.space = space_in(opcode);
    bound.aux = form->aux;
    const std::vector<Resize> resized = binder_.bind(*form, source, bound);
    Instruction& i = emit(form->handler);
    bound.handler = i.handler;
    bound.index = i.index;
    i = bound;
    set_predicate(i, source);
    for (const Resize& resize : resized) resize_destination(resize, source);
  }

  void resize_destination(const Resize& resize, const ptx::Instruction& source) {
    const Form* form = FormTable::instance().find(resize.form);
    if (!form) throw Unsupported("no form " + resize.form);
    Instruction& i = emit(form->handler);
    i.operands[0] = resize.destination;
    i.operands[1] = resize.narrow;
    set_predicate(i, source);
  }

  const ptx::Module& module_;
  const ptx::Function& entry_;
  Kernel kernel_;
  Symbols symbols_;
  OperandBinder binder_;
  std::shared_ptr<const ptx::Instruction> origin_;
  std::vector<Branch> branches_;
  std::vector<Table> tables_;
  std::vector<std::vector<u32>> returns_;  // of the expansions that are open
};

}  // namespace

Kernel lower(const ptx::Module& module, const ptx::Function& entry,
             const std::map<std::string, GlobalVariable>& globals) {
  return Lowering(module, entry, globals).run();
}

}  // namespace tramontane::emulator
