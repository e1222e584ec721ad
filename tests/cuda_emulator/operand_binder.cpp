#include "tests/cuda_emulator/operand_binder.h"

#include <bit>

namespace tramontane::emulator {
namespace {

using Kind = ptx::Operand::Kind;

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

// The operands one by one, as the slots want them: vectors spread out, d|p in two, a missing second half as a
// sink.
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

u64 number(const ptx::Operand& operand) {
  if (operand.kind != Kind::kInteger) throw Unsupported("operand is no number");
  return operand.bits;
}

u64 as_double(u64 single_bits) {
  return std::bit_cast<u64>(f64{std::bit_cast<f32>(static_cast<u32>(single_bits))});
}
u64 as_single(u64 double_bits) {
  return std::bit_cast<u32>(static_cast<f32>(std::bit_cast<f64>(double_bits)));
}

}  // namespace

std::vector<Resize> OperandBinder::bind(const Form& form, const ptx::Instruction& source, Instruction& i) {
  const std::vector<ptx::Operand> flat = flatten(source, form.slots);
  std::vector<Resize> resized;
  std::size_t next = 0;
  u8 at = 0;
  bool destination = true;
  has_address_ = false;
  for (const char slot : form.slots) {
    if (slot == '=') {
      destination = false;
    } else if (slot == 'x') {
      i.operands.at(at++) = carry_;
    } else if (next == flat.size()) {
      if (slot != 'o') throw Unsupported("too few operands");
    } else if (slot == 'i') {
      i.immediate = static_cast<s64>(number(flat[next++]));
    } else {
      if (at >= i.operands.size()) throw Unsupported("too many operands");
      i.operands[at++] = bind_slot(slot, destination, flat[next++], i, resized);
    }
  }
  if (next != flat.size()) throw Unsupported("too many operands");
  i.count = at;
  return resized;
}

Operand OperandBinder::bind_slot(char slot, bool destination, const ptx::Operand& operand, Instruction& i,
                                 std::vector<Resize>& resized) {
  if (slot == 'm') return address(operand, i);
  if (slot == 'p' || slot == '?') return predicate_operand(operand, destination);
  return destination ? destination_operand(operand, slot, resized) : value(operand, slot);
}

Symbol OperandBinder::register_named(const std::string& name) {
  const auto symbol = symbols_.find(name);
  if (!symbol || symbol->kind != Symbol::Kind::kRegister) throw Unsupported("unknown register " + name);
  return *symbol;
}

Operand OperandBinder::predicate_operand(const ptx::Operand& operand, bool destination) {
  if (operand.kind == Kind::kSink && destination) return {};
  if (operand.kind == Kind::kNot && !destination) {
    const Operand inner = predicate_operand(operand.parts[0], false);
    const Operand negated = symbols_.new_register(0);
    Instruction& i = emit_(FormTable::instance().find("not.pred")->handler);
    i.operands[0] = negated;
    i.operands[1] = inner;
    return negated;
  }
  // All lanes of a predicate are one word.
  if (operand.kind == Kind::kInteger && !destination)
    return symbols_.constant(operand.bits ? kAllLanes : 0, 4);
  if (operand.kind != Kind::kName) throw Unsupported("operand is no predicate");
  const Symbol symbol = register_named(operand.name);
  if (symbol.size) throw Unsupported(operand.name + " is no predicate");
  return symbol.operand;
}

Operand OperandBinder::destination_operand(const ptx::Operand& operand, char slot,
                                           std::vector<Resize>& resized) {
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

Operand OperandBinder::value(const ptx::Operand& operand, char slot) {
  const u32 bytes = slot_bytes(slot);
  switch (operand.kind) {
    case Kind::kInteger:
      return symbols_.constant(operand.bits, bytes);
    case Kind::kFloat32:
      return symbols_.constant(bytes == 8 ? as_double(operand.bits) : operand.bits, bytes);
    case Kind::kFloat64:
      return symbols_.constant(bytes == 4 ? as_single(operand.bits) : operand.bits, bytes);
    case Kind::kName:
      break;
    default:
      throw Unsupported("operand of an unknown kind");
  }
  if (operand.name == "WARP_SZ") return symbols_.constant(kLanes, bytes);
  const auto symbol = symbols_.find(operand.name);
  if (!symbol) throw Unsupported("unknown name " + operand.name);
  if (symbol->kind == Symbol::Kind::kAddress) return symbols_.constant(symbol->address + operand.bits, bytes);
  if (symbol->size == bytes) return symbol->operand;
  if (symbol->size < bytes) throw Unsupported(operand.name + " is too narrow");
  return narrowed(*symbol, bytes);
}

Operand OperandBinder::narrowed(const Symbol& symbol, u32 bytes) {
  const Form* form =
      FormTable::instance().find("resize." + std::to_string(symbol.size) + "." + std::to_string(bytes));
  if (!form) throw Unsupported("register of a size that does not fit");
  const Operand narrow = symbols_.new_register(bytes);
  Instruction& i = emit_(form->handler);
  i.operands[0] = narrow;
  i.operands[1] = symbol.operand;
  return narrow;
}

Operand OperandBinder::address(const ptx::Operand& operand, Instruction& i) {
  if (operand.kind != Kind::kAddress) throw Unsupported("operand is no address");
  const bool first = !has_address_;
  has_address_ = true;
  if (operand.name.empty()) return symbols_.constant(operand.bits, 8);
  const auto symbol = symbols_.find(operand.name);
  if (!symbol) throw Unsupported("unknown name " + operand.name);
  if (symbol->kind == Symbol::Kind::kAddress) {
    if (i.space == ptx::Space::kParam) i.space = symbol->space;  // of the kernel, or of a call
    return symbols_.constant(symbol->address + operand.bits, 8);
  }
  if (first)
    i.wide_address = symbol->size == 8;
  else if (symbol->size != 8)
    throw Unsupported("address in a narrow register");
  (first ? i.immediate : i.immediate2) = static_cast<s64>(operand.bits);
  return symbol->operand;
}

}  // namespace tramontane::emulator
