// setp: compares, and joins the outcome with another predicate.
#include "tests/cuda_emulator/ops/float_math.h"
#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

enum Join : u32 { kNone, kAnd, kOr, kXor };

LaneMask join(const Warp& warp, const Instruction& i, LaneMask value) {
  switch (i.aux) {
    case kAnd:
      return value & predicate(warp, i.operands[4]);
    case kOr:
      return value | predicate(warp, i.operands[4]);
    case kXor:
      return value ^ predicate(warp, i.operands[4]);
    default:
      return value;
  }
}

// Reads lanes of type Held and compares them as numbers of Source::Number.
template <class Source, class Compare>
void set_predicate(Warp& warp, const Instruction& i, LaneMask mask) {
  using Bits = typename Source::Bits;
  const Bits* a = lanes<Bits>(warp, i.operands[2]);
  const Bits* b = lanes<Bits>(warp, i.operands[3]);
  LaneMask result = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    result |= static_cast<LaneMask>(Compare()(Source::read(a[lane]), Source::read(b[lane]))) << lane;
  const LaneMask complement = join(warp, i, ~result);
  write_predicate(warp, i.operands[0], mask, join(warp, i, result));
  write_predicate(warp, i.operands[1], mask, complement);
}

template <class T>
struct Plain {
  using Bits = T;
  static T read(T x) { return x; }
};
struct Flushed {
  using Bits = f32;
  static f32 read(f32 x) { return flush(x); }
};
struct FromHalf {
  using Bits = u16;
  static f32 read(u16 x) { return half_to_f32(x); }
};
struct FromBf16 {
  using Bits = u16;
  static f32 read(u16 x) { return bf16_to_f32(x); }
};

// Ordered comparisons are false when a NaN takes part, unordered ones true.
struct Eq {
  template <class T>
  bool operator()(T a, T b) const {
    return a == b;
  }
};
struct Ne {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b || a > b;
  }
};
struct Lt {
  template <class T>
  bool operator()(T a, T b) const {
    return a < b;
  }
};
struct Le {
  template <class T>
  bool operator()(T a, T b) const {
    return a <= b;
  }
};
struct Gt {
  template <class T>
  bool operator()(T a, T b) const {
    return a > b;
  }
};
struct Ge {
  template <class T>
  bool operator()(T a, T b) const {
    return a >= b;
  }
};
struct Equ {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a < b || a > b);
  }
};
struct Neu {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a == b);
  }
};
struct Ltu {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a >= b);
  }
};
struct Leu {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a > b);
  }
};
struct Gtu {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a <= b);
  }
};
struct Geu {
  template <class T>
  bool operator()(T a, T b) const {
    return !(a < b);
  }
};
struct Num {
  template <class T>
  bool operator()(T a, T b) const {
    return a == a && b == b;
  }
};
struct Nan {
  template <class T>
  bool operator()(T a, T b) const {
    return a != a || b != b;
  }
};

// set: true is all ones in an integer, 1.0 in a float.
template <class Source, class Compare, class D, D kTrue>
struct SetValue {
  D operator()(typename Source::Bits a, typename Source::Bits b) const {
    return Compare()(Source::read(a), Source::read(b)) ? kTrue : D{0};
  }
};
template <class Compare, u32 kTrue>
struct SetPair {
  u32 operator()(u32 a, u32 b) const {
    const SetValue<FromHalf, Compare, u16, static_cast<u16>(kTrue)> set;
    const u32 high = set(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16));
    return high << 16 | set(static_cast<u16>(a), static_cast<u16>(b));
  }
};

constexpr u32 kOne = 0x3f800000;
constexpr u16 kHalfOne = 0x3c00;

template <class Source, class Compare>
void add_set(FormTable& t, const std::string& compare, const std::string& type) {
  using Bits = typename Source::Bits;
  add_lanewise<SetValue<Source, Compare, u32, ~0u>, u32, Bits, Bits>(t, "set." + compare + ".u32" + type);
  add_lanewise<SetValue<Source, Compare, u32, kOne>, u32, Bits, Bits>(t, "set." + compare + ".f32" + type);
  if constexpr (std::is_same_v<Source, FromHalf>) {
    add_lanewise<SetValue<Source, Compare, u16, kHalfOne>, u16, u16, u16>(t, "set." + compare + ".f16.f16");
    add_lanewise<SetPair<Compare, kHalfOne>, u32, u32, u32>(t, "set." + compare + ".f16x2.f16x2");
    add_lanewise<SetPair<Compare, 0xffff>, u32, u32, u32>(t, "set." + compare + ".u32.f16x2");
  }
}

template <class Source, class Compare>
void add_one(FormTable& t, const std::string& compare, const std::string& type) {
  const char slot = slot_of<typename Source::Bits>();
  const std::string slots{'p', '?', '=', slot, slot};
  t.add("setp." + compare + type, {&set_predicate<Source, Compare>, slots, kNone});
  t.add("setp." + compare + ".and" + type, {&set_predicate<Source, Compare>, slots + 'p', kAnd});
  t.add("setp." + compare + ".or" + type, {&set_predicate<Source, Compare>, slots + 'p', kOr});
  t.add("setp." + compare + ".xor" + type, {&set_predicate<Source, Compare>, slots + 'p', kXor});
  if constexpr (std::is_same_v<Source, Plain<f32>> || std::is_same_v<Source, FromHalf>)
    add_set<Source, Compare>(t, compare, type);
}

template <class Source>
void add_ordered(FormTable& t, const std::string& type) {
  add_one<Source, Eq>(t, "eq", type);
  add_one<Source, Ne>(t, "ne", type);
  add_one<Source, Lt>(t, "lt", type);
  add_one<Source, Le>(t, "le", type);
  add_one<Source, Gt>(t, "gt", type);
  add_one<Source, Ge>(t, "ge", type);
}

template <class Source>
void add_float(FormTable& t, const std::string& type) {
  add_ordered<Source>(t, type);
  add_one<Source, Equ>(t, "equ", type);
  add_one<Source, Neu>(t, "neu", type);
  add_one<Source, Ltu>(t, "ltu", type);
  add_one<Source, Leu>(t, "leu", type);
  add_one<Source, Gtu>(t, "gtu", type);
  add_one<Source, Geu>(t, "geu", type);
  add_one<Source, Num>(t, "num", type);
  add_one<Source, Nan>(t, "nan", type);
}

template <class T>
void add_integers(FormTable& t, const std::string& bits) {
  add_ordered<Plain<std::make_signed_t<T>>>(t, ".s" + bits);
  add_ordered<Plain<T>>(t, ".u" + bits);
  add_one<Plain<T>, Eq>(t, "eq", ".b" + bits);
  add_one<Plain<T>, Ne>(t, "ne", ".b" + bits);
  add_one<Plain<T>, Lt>(t, "lo", ".u" + bits);
  add_one<Plain<T>, Le>(t, "ls", ".u" + bits);
  add_one<Plain<T>, Gt>(t, "hi", ".u" + bits);
  add_one<Plain<T>, Ge>(t, "hs", ".u" + bits);
}

}  // namespace

void add_comparison_forms(FormTable& t) {
  add_integers<u16>(t, "16");
  add_integers<u32>(t, "32");
  add_integers<u64>(t, "64");
  add_float<Plain<f32>>(t, ".f32");
  add_float<Flushed>(t, ".ftz.f32");
  add_float<Plain<f64>>(t, ".f64");
  add_float<FromHalf>(t, ".f16");
  add_float<FromBf16>(t, ".bf16");
}

}  // namespace tramontane::emulator
