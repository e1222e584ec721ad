// Fits the operands of a PTX instruction to the slots of its form.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/symbols.h"

namespace tramontane::emulator {

// An instruction that the table has no form for, or whose operands do not fit it.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A destination register that is wider than the instruction's result: to be filled from `narrow` afterwards
// by the form named.
struct Resize {
  Operand destination;
  Operand narrow;
  std::string form;
};

// All members throw Unsupported.
class OperandBinder {
 public:
  // `emit` appends an instruction to the kernel: some operands need one of their own before.
  OperandBinder(Symbols& symbols, std::function<Instruction&(Handler)> emit)
      : symbols_(symbols), emit_(std::move(emit)), carry_(symbols.new_register(0)) {}

  // Sets the operands, immediates and space of `i`. Returns the destinations that are wider.
  std::vector<Resize> bind(const Form& form, const ptx::Instruction& source, Instruction& i);

  // A source of a slot's size: register, special register, constant or address of a variable.
  Operand value(const ptx::Operand& operand, char slot);

 private:
  Operand bind_slot(char slot, bool destination, const ptx::Operand& operand, Instruction& i,
                    std::vector<Resize>& resized);
  Operand predicate_operand(const ptx::Operand& operand, bool destination);
  Operand destination_operand(const ptx::Operand& operand, char slot, std::vector<Resize>& resized);
  Operand narrowed(const Symbol& symbol, u32 bytes);
  Operand address(const ptx::Operand& operand, Instruction& i);
  Symbol register_named(const std::string& name);

  Symbols& symbols_;
  std::function<Instruction&(Handler)> emit_;
  Operand carry_;             // the flag of add.cc and its kin
  bool has_address_ = false;  // of the instruction that is being bound
};

}  // namespace tramontane::emulator
