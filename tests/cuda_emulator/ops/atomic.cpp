// atom and red.
#include <bit>
#include <type_traits>

#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

// Whether a float operation takes part in it or not, memory is exchanged as an integer of the same size.
template <class T>
using Word = std::conditional_t<sizeof(T) == 2, u16, std::conditional_t<sizeof(T) == 4, u32, u64>>;

struct Add {
  template <class T>
  T operator()(T old, T b, T) const {
    return static_cast<T>(old + b);
  }
};
struct Min {
  template <class T>
  T operator()(T old, T b, T) const {
    return b < old ? b : old;
  }
};
struct Max {
  template <class T>
  T operator()(T old, T b, T) const {
    return b > old ? b : old;
  }
};
struct And {
  template <class T>
  T operator()(T old, T b, T) const {
    return old & b;
  }
};
struct Or {
  template <class T>
  T operator()(T old, T b, T) const {
    return old | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T old, T b, T) const {
    return old ^ b;
  }
};
struct Exchange {
  template <class T>
  T operator()(T, T b, T) const {
    return b;
  }
};
struct CompareAndSwap {
  template <class T>
  T operator()(T old, T b, T c) const {
    return old == b ? c : old;
  }
};
struct Increment {
  template <class T>
  T operator()(T old, T b, T) const {
    return old >= b ? T{0} : old + 1;
  }
};
struct Decrement {
  template <class T>
  T operator()(T old, T b, T) const {
    return old == 0 || old > b ? b : old - 1;
  }
};
struct AddHalfPair {
  u32 operator()(u32 old, u32 b, u32) const {
    const auto half = [&](int shift) {
      const f64 x = half_to_f32(static_cast<u16>(old >> shift)),
                y = half_to_f32(static_cast<u16>(b >> shift));
      return static_cast<u32>(f64_to_half(x + y)) << shift;
    };
    return half(0) | half(16);
  }
};

struct AddHalf {
  u16 operator()(u16 old, u16 b, u16) const { return f64_to_half(half_to_f32(old) + half_to_f32(b)); }
};

template <class Op, class T>
T exchange(u8* address, T b, T c) {
  auto* word = reinterpret_cast<Word<T>*>(address);
  Word<T> old = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    const T value = std::bit_cast<T>(old);
    const Word<T> updated = std::bit_cast<Word<T>>(static_cast<T>(Op()(value, b, c)));
    if (__atomic_compare_exchange_n(word, &old, updated, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      return value;
  }
}

// Destination (atom only, aux 1), address, operand, and cas's second operand.
template <class Op, class T>
void atomic(Warp& warp, const Instruction& i, LaneMask mask) {
  const u32 first = i.aux;
  const Operand destination = first ? i.operands[0] : Operand();
  const T* b = lanes<const T>(warp, i.operands[first + 1]);
  const T* c = i.operands[first + 2].exists() ? lanes<const T>(warp, i.operands[first + 2]) : b;
  T result[kLanes]{};
  for_each_lane(mask, [&](int lane) {
    const u64 at = lane_address(warp, i, i.operands[first], lane, i.immediate);
    result[lane] =
        exchange<Op, T>(resolve(warp, i, lane, at, sizeof(T), i.space, Access::kAtomic), b[lane], c[lane]);
  });
  write_operand<T>(warp, destination, mask, [&](int lane) { return result[lane]; });
}

template <class Op, class T>
void add_one(FormTable& t, const std::string& op, const std::string& type, const std::string& values = "") {
  const std::string operands = values.empty() ? std::string(1, slot_of<T>()) : values;
  for (const std::string space : {"", ".global", ".shared"}) {
    t.add("atom" + space + "." + op + "." + type,
          {&atomic<Op, T>, std::string(1, slot_of<T>()) + "=m" + operands, 1});
    if (op != "cas" && op != "exch")
      t.add("red" + space + "." + op + "." + type, {&atomic<Op, T>, "=m" + operands, 0});
  }
}

template <class T>
void add_number(FormTable& t, const std::string& type) {
  add_one<Add, T>(t, "add", type);
  add_one<Min, T>(t, "min", type);
  add_one<Max, T>(t, "max", type);
}

template <class T>
void add_bits(FormTable& t, const std::string& type) {
  add_one<And, T>(t, "and", type);
  add_one<Or, T>(t, "or", type);
  add_one<Xor, T>(t, "xor", type);
  add_one<Exchange, T>(t, "exch", type);
  add_one<CompareAndSwap, T>(t, "cas", type, std::string(2, slot_of<T>()));
}

}  // namespace

void add_atomic_forms(FormTable& t) {
  add_number<u32>(t, "u32");
  add_number<s32>(t, "s32");
  add_number<u64>(t, "u64");
  add_number<s64>(t, "s64");
  add_one<Add, f32>(t, "add", "f32");
  add_one<Add, f32>(t, "add.ftz", "f32");
  add_one<Add, f64>(t, "add", "f64");
  add_one<AddHalfPair, u32>(t, "add.noftz", "f16x2");
  add_one<AddHalf, u16>(t, "add.noftz", "f16");
  add_one<Increment, u32>(t, "inc", "u32");
  add_one<Decrement, u32>(t, "dec", "u32");
  add_bits<u32>(t, "b32");
  add_bits<u64>(t, "b64");
  add_one<CompareAndSwap, u16>(t, "cas", "b16", "22");
}

}  // namespace tramontane::emulator
