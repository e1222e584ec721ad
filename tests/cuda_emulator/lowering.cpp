#include "tests/cuda_emulator/lowering.h"

#include <bit>
#include <stdexcept>

#include "tests/cuda_emulator/module.h"
#include "tests/cuda_emulator/ops/control.h"
#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ptx/parser.h"
#include "tests/cuda_emulator/symbols.h"

namespace tramontane::emulator {
namespace {

using ptx::Space;
using Kind = ptx::Operand::Kind;

// An instruction that the table has no form for, or whose operands do not fit it.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

u32 slot_bytes(char slot) {
  switch (slot) {
    case '1':
    case 'a':
    case '2':
    case 'b':
      return 2;
    case '4':
    case 'c':
    case 'o':
      return 4;
    case '8':
      return 8;
    default:
      return 0;
  }
}

Space space_in(const std::string& opcode) {
  for (const auto& [name, space] :
       {std::pair{".shared", Space::kShared}, {".local", Space::kLocal}, {".param", Space::kParam}})
    if (opcode.find(name) != opcode.npos) return space;
  return Space::kGlobal;
}

class Lowering {
 public:
  Lowering(const ptx::Module& module, const ptx::Function& entry,
           const std::map<std::string, GlobalVariable>& globals)
      : module_(module), entry_(entry), symbols_(module, globals, kernel_) {}

  Kernel run() {
    kernel_.name = entry_.name;
    kernel_.files = module_.files;
    kernel_.max_threads = entry_.max_threads;
    carry_ = symbols_.new_register(0);
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
  // A destination that is wider than the instruction's result.
  struct Resize {
    Operand destination;
    Operand narrow;
    std::string form;
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
    const Operand index = value(source.operands[0], '4');
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
    Instruction bound;
    bound.space = space_in(opcode);
    bound.aux = form->aux;
    std::vector<Resize> resized;
    bind(*form, flatten(source, form->slots), bound, resized);
    Instruction& i = emit(form->handler);
    bound.handler = i.handler;
    bound.index = i.index;
    i = bound;
    set_predicate(i, source);
    for (const Resize& resize : resized) resize_destination(resize, source);
  }

  // The operands one by one, as the slots want them: vectors spread out, d|p in two, a missing second half as
  // a sink.
  std::vector<ptx::Operand> flatten(const ptx::Instruction& source, const std::string& slots) {
    std::vector<ptx::Operand> flat;
    const bool optional_pair = slots.size() > 1 && slots[1] == '?';
    for (const ptx::Operand& operand : source.operands) {
      if (operand.kind == Kind::kVector || operand.kind == Kind::kPair)
        flat.insert(flat.end(), operand.parts.begin(), operand.parts.end());
      else
        flat.push_back(operand);
      if (flat.size() == 1 && optional_pair && operand.kind != Kind::kPair) flat.emplace_back();
    }
    return flat;
  }

  void bind(const Form& form, const std::vector<ptx::Operand>& flat, Instruction& i,
            std::vector<Resize>& resized) {
    std::size_t next = 0;
    u8 at = 0;
    bool destination = true, has_address = false;
    for (const char slot : form.slots) {
      if (slot == '=') {
        destination = false;
        continue;
      }
      if (at >= i.operands.size()) throw Unsupported("too many operands");
      if (slot == 'x') {
        i.operands[at++] = carry_;
        continue;
      }
      if (next == flat.size()) {
        if (slot == 'o') continue;
        throw Unsupported("too few operands");
      }
      const ptx::Operand& operand = flat[next++];
      if (slot == 'i')
        i.immediate = static_cast<s64>(number(operand));
      else if (slot == 'm')
        i.operands[at++] = address(operand, i, has_address);
      else if (slot == 'p' || slot == '?')
        i.operands[at++] = predicate_operand(operand, destination);
      else
        i.operands[at++] = destination ? destination_operand(operand, slot, resized) : value(operand, slot);
    }
    if (next != flat.size()) throw Unsupported("too many operands");
    i.count = at;
  }

  static u64 number(const ptx::Operand& operand) {
    if (operand.kind != Kind::kInteger) throw Unsupported("operand is no number");
    return operand.bits;
  }

  Symbol register_named(const std::string& name) {
    const auto symbol = symbols_.find(name);
    if (!symbol || symbol->kind != Symbol::Kind::kRegister) throw Unsupported("unknown register " + name);
    return *symbol;
  }

  Operand predicate_operand(const ptx::Operand& operand, bool destination) {
    if (operand.kind == Kind::kSink && destination) return {};
    if (operand.kind == Kind::kNot && !destination) {
      const Operand inner = predicate_operand(operand.parts[0], false);
      const Operand negated = symbols_.new_register(0);
      Instruction& i = emit(FormTable::instance().find("not.pred")->handler);
      i.operands[0] = negated;
      i.operands[1] = inner;
      return negated;
    }
    if (operand.kind == Kind::kInteger && !destination) return constant_predicate(operand.bits != 0);
    if (operand.kind != Kind::kName) throw Unsupported("operand is no predicate");
    const Symbol symbol = register_named(operand.name);
    if (symbol.size) throw Unsupported(operand.name + " is no predicate");
    return symbol.operand;
  }

  // All lanes of a predicate are one word: any constant of that many bits serves.
  Operand constant_predicate(bool value) { return symbols_.constant(value ? kAllLanes : 0, 4); }

  Operand destination_operand(const ptx::Operand& operand, char slot, std::vector<Resize>& resized) {
    if (operand.kind == Kind::kSink) return {};
    if (operand.kind != Kind::kName) throw Unsupported("destination is no register");
    const Symbol symbol = register_named(operand.name);
    if (symbol.size == slot_bytes(slot)) return symbol.operand;
    if (symbol.size < slot_bytes(slot)) throw Unsupported(operand.name + " is too narrow");
    const char held = slot == '1' ? '2' : slot == 'a' ? 'b' : slot;
    const Operand narrow = symbols_.new_register(slot_bytes(slot));
    resized.push_back(
        {symbol.operand, narrow, std::string("resize.") + held + "." + std::to_string(symbol.size)});
    return narrow;
  }

  void resize_destination(const Resize& resize, const ptx::Instruction& source) {
    const Form* form = FormTable::instance().find(resize.form);
    if (!form) throw Unsupported("no form " + resize.form);
    Instruction& i = emit(form->handler);
    i.operands[0] = resize.destination;
    i.operands[1] = resize.narrow;
    set_predicate(i, source);
  }

  // A source of a slot's size: register, special register, constant or address of a variable.
  Operand value(const ptx::Operand& operand, char slot) {
    const u32 bytes = slot_bytes(slot);
    switch (operand.kind) {
      case Kind::kInteger:
        return symbols_.constant(operand.bits, bytes);
      case Kind::kFloat32:
        return symbols_.constant(
            bytes == 8 ? std::bit_cast<u64>(f64{std::bit_cast<f32>(static_cast<u32>(operand.bits))})
                       : operand.bits,
            bytes);
      case Kind::kFloat64:
        return symbols_.constant(bytes == 4
                                     ? std::bit_cast<u32>(static_cast<f32>(std::bit_cast<f64>(operand.bits)))
                                     : operand.bits,
                                 bytes);
      case Kind::kName:
        break;
      default:
        throw Unsupported("operand of an unknown kind");
    }
    if (operand.name == "WARP_SZ") return symbols_.constant(kLanes, bytes);
    const auto symbol = symbols_.find(operand.name);
    if (!symbol) throw Unsupported("unknown name " + operand.name);
    if (symbol->kind == Symbol::Kind::kAddress)
      return symbols_.constant(symbol->address + operand.bits, bytes);
    if (symbol->size == bytes) return symbol->operand;
    if (symbol->size < bytes) throw Unsupported(operand.name + " is too narrow");
    return narrowed(*symbol, bytes);
  }

  Operand narrowed(const Symbol& symbol, u32 bytes) {
    const Form* form =
        FormTable::instance().find("resize." + std::to_string(symbol.size) + "." + std::to_string(bytes));
    if (!form) throw Unsupported("register of a size that does not fit");
    const Operand narrow = symbols_.new_register(bytes);
    Instruction& i = emit(form->handler);
    i.operands[0] = narrow;
    i.operands[1] = symbol.operand;
    return narrow;
  }

  Operand address(const ptx::Operand& operand, Instruction& i, bool& has_address) {
    if (operand.kind != Kind::kAddress) throw Unsupported("operand is no address");
    s64& offset = has_address ? i.immediate2 : i.immediate;
    const bool first = !has_address;
    has_address = true;
    if (operand.name.empty()) return symbols_.constant(operand.bits, 8);
    const auto symbol = symbols_.find(operand.name);
    if (!symbol) throw Unsupported("unknown name " + operand.name);
    if (symbol->kind == Symbol::Kind::kAddress) {
      if (i.space == Space::kParam) i.space = symbol->space;  // of the kernel, or of a call
      return symbols_.constant(symbol->address + operand.bits, 8);
    }
    offset = static_cast<s64>(operand.bits);
    if (first)
      i.wide_address = symbol->size == 8;
    else if (symbol->size != 8)
      throw Unsupported("address in a narrow register");
    return symbol->operand;
  }

  const ptx::Module& module_;
  const ptx::Function& entry_;
  Kernel kernel_;
  Symbols symbols_;
  Operand carry_;
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
