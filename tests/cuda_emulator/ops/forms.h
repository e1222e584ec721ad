// The table of PTX forms: every opcode with modifiers that the emulator knows, and what performs it. What is
// not here faults.
#pragma once

#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {

// How an instruction is performed and what its operands are. Slots, in the order of the PTX operands, vectors
// spread out:
//   2 4 8   register or constant of so many bytes     1  one byte, held in two
//   a b c   the same, signed, of 1, 2, 4 bytes: a wider destination register gets the sign
//   p       predicate        ?  the optional second half of d|p        m  memory address
//   i       plain number     o  optional source of 4 bytes
// Destinations stand before '='.
struct Form {
  Handler handler;
  std::string slots;
  u32 aux = 0;
};

class FormTable {
 public:
  static const FormTable& instance();
  // Null for what is not known. `opcode` is canonical_opcode's.
  const Form* find(std::string_view opcode) const;
  void add(const std::string& opcode, Form form);
  std::size_t size() const { return forms_.size(); }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, Form, Hash, std::equal_to<>> forms_;
};

// The opcode without what changes nothing here: cache hints, memory order and scope of plain accesses,
// ".uni".
std::string canonical_opcode(std::string_view opcode);

void add_integer_forms(FormTable& table);
void add_bit_forms(FormTable& table);
void add_float_forms(FormTable& table);
void add_rounding_forms(FormTable& table);
void add_special_function_forms(FormTable& table);
void add_half_forms(FormTable& table);
void add_conversion_forms(FormTable& table);
void add_comparison_forms(FormTable& table);
void add_memory_forms(FormTable& table);
void add_atomic_forms(FormTable& table);
void add_warp_forms(FormTable& table);
void add_control_forms(FormTable& table);
void add_tensor_forms(FormTable& table);
void add_async_copy_forms(FormTable& table);

// How a value of type T is held in a register's lane.
template <class T>
using Held = std::conditional_t<sizeof(T) == 1, std::conditional_t<std::is_signed_v<T>, s16, u16>, T>;

template <class T>
constexpr char slot_of() {
  constexpr bool is_signed = std::is_integral_v<T> && std::is_signed_v<T>;
  if constexpr (sizeof(T) == 8)
    return '8';
  else if constexpr (sizeof(T) == 4)
    return is_signed ? 'c' : '4';
  else if constexpr (sizeof(T) == 2)
    return is_signed ? 'b' : '2';
  else
    return is_signed ? 'a' : '1';
}

// d = Op()(sources...), lane by lane.
template <class Op, class D, class... S>
void lanewise(Warp& warp, const Instruction& i, LaneMask mask) {
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    const std::tuple<const Held<S>*...> sources{lanes<const Held<S>>(warp, i.operands[K + 1])...};
    const Op op{};
    write_operand<Held<D>>(warp, i.operands[0], mask, [&](int lane) {
      return static_cast<Held<D>>(op(static_cast<S>(std::get<K>(sources)[lane])...));
    });
  }
  (std::index_sequence_for<S...>{});
}

template <class Op, class D, class... S>
void add_lanewise(FormTable& table, const std::string& opcode) {
  table.add(opcode, {&lanewise<Op, D, S...>, std::string{slot_of<D>(), '='} + std::string{slot_of<S>()...}});
}

}  // namespace tramontane::emulator
