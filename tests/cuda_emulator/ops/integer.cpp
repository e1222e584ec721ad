// Integer arithmetic. Products and sums wrap, so they are taken in unsigned numbers of enough bits.
#include <algorithm>
#include <limits>

#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

__extension__ typedef __int128 s128;
__extension__ typedef unsigned __int128 u128;

template <class T>
using Unsigned = std::make_unsigned_t<T>;

template <class T>
using Wide = std::conditional_t<sizeof(T) == 8, std::conditional_t<std::is_signed_v<T>, s128, u128>,
                                std::conditional_t<std::is_signed_v<T>, s64, u64>>;

template <class T>
T low_product(T a, T b) {
  return static_cast<T>(u64{static_cast<Unsigned<T>>(a)} * u64{static_cast<Unsigned<T>>(b)});
}
template <class T>
T high_product(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}

template <class T>
struct Add {
  T operator()(T a, T b) const { return static_cast<T>(Unsigned<T>(a) + Unsigned<T>(b)); }
};
template <class T>
struct Sub {
  T operator()(T a, T b) const { return static_cast<T>(Unsigned<T>(a) - Unsigned<T>(b)); }
};
template <class T>
struct MulLow {
  T operator()(T a, T b) const { return low_product(a, b); }
};
template <class T>
struct MulHigh {
  T operator()(T a, T b) const { return high_product(a, b); }
};
template <class T, class W>
struct MulWide {
  W operator()(T a, T b) const { return static_cast<W>(static_cast<W>(a) * static_cast<W>(b)); }
};
template <class T>
struct MadLow {
  T operator()(T a, T b, T c) const { return Add<T>()(low_product(a, b), c); }
};
template <class T>
struct MadHigh {
  T operator()(T a, T b, T c) const { return Add<T>()(high_product(a, b), c); }
};
template <class T, class W>
struct MadWide {
  W operator()(T a, T b, W c) const {
    return Add<W>()(static_cast<W>(static_cast<W>(a) * static_cast<W>(b)), c);
  }
};
// Division by zero gives all ones on NVIDIA GPUs; the most negative number by -1 wraps.
template <class T>
struct Div {
  T operator()(T a, T b) const {
    if (b == 0) return static_cast<T>(~T{0});
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return Sub<T>()(0, a);
    return static_cast<T>(a / b);
  }
};
template <class T>
struct Rem {
  T operator()(T a, T b) const {
    if (b == 0) return a;
    if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
    return static_cast<T>(a % b);
  }
};
template <class T>
struct Min {
  T operator()(T a, T b) const { return a < b ? a : b; }
};
template <class T>
struct Max {
  T operator()(T a, T b) const { return a > b ? a : b; }
};
template <class T>
struct Neg {
  T operator()(T a) const { return Sub<T>()(0, a); }
};
template <class T>
struct Abs {
  T operator()(T a) const { return a < 0 ? Sub<T>()(0, a) : a; }
};
template <class T>
struct Sad {
  T operator()(T a, T b, T c) const { return Add<T>()(c, a < b ? Sub<T>()(b, a) : Sub<T>()(a, b)); }
};
struct AddSaturate {
  s32 operator()(s32 a, s32 b) const {
    return static_cast<s32>(
        std::clamp<s64>(s64{a} + b, std::numeric_limits<s32>::min(), std::numeric_limits<s32>::max()));
  }
};
struct SubSaturate {
  s32 operator()(s32 a, s32 b) const {
    return static_cast<s32>(
        std::clamp<s64>(s64{a} - b, std::numeric_limits<s32>::min(), std::numeric_limits<s32>::max()));
  }
};
template <class A, class B>
struct Dp4a {
  s32 operator()(u32 a, u32 b, s32 c) const {
    u32 sum = static_cast<u32>(c);
    for (int k = 0; k < 4; ++k)
      sum += static_cast<u32>(static_cast<A>(a >> 8 * k) * static_cast<B>(b >> 8 * k));
    return static_cast<s32>(sum);
  }
};
template <class A, class B, int kHalf>
struct Dp2a {
  using A16 = std::conditional_t<std::is_signed_v<A>, s16, u16>;
  s32 operator()(u32 a, u32 b, s32 c) const {
    u32 sum = static_cast<u32>(c);
    for (int k = 0; k < 2; ++k)
      sum += static_cast<u32>(static_cast<A16>(a >> 16 * k) * static_cast<B>(b >> 8 * (k + 2 * kHalf)));
    return static_cast<s32>(sum);
  }
};

template <class T>
void add_type(FormTable& t, const std::string& type) {
  add_lanewise<Add<T>, T, T, T>(t, "add." + type);
  add_lanewise<Sub<T>, T, T, T>(t, "sub." + type);
  add_lanewise<MulLow<T>, T, T, T>(t, "mul.lo." + type);
  add_lanewise<MulHigh<T>, T, T, T>(t, "mul.hi." + type);
  add_lanewise<MadLow<T>, T, T, T, T>(t, "mad.lo." + type);
  add_lanewise<MadHigh<T>, T, T, T, T>(t, "mad.hi." + type);
  add_lanewise<Div<T>, T, T, T>(t, "div." + type);
  add_lanewise<Rem<T>, T, T, T>(t, "rem." + type);
  add_lanewise<Min<T>, T, T, T>(t, "min." + type);
  add_lanewise<Max<T>, T, T, T>(t, "max." + type);
  add_lanewise<Sad<T>, T, T, T, T>(t, "sad." + type);
  if constexpr (std::is_signed_v<T>) {
    add_lanewise<Neg<T>, T, T>(t, "neg." + type);
    add_lanewise<Abs<T>, T, T>(t, "abs." + type);
  }
}

template <class T, class W>
void add_wide(FormTable& t, const std::string& type) {
  add_lanewise<MulWide<T, W>, W, T, T>(t, "mul.wide." + type);
  add_lanewise<MadWide<T, W>, W, T, T, W>(t, "mad.wide." + type);
}

template <class A, class B>
void add_dot(FormTable& t, const std::string& types) {
  add_lanewise<Dp4a<A, B>, s32, u32, u32, s32>(t, "dp4a." + types);
  add_lanewise<Dp2a<A, B, 0>, s32, u32, u32, s32>(t, "dp2a.lo." + types);
  add_lanewise<Dp2a<A, B, 1>, s32, u32, u32, s32>(t, "dp2a.hi." + types);
}

// Chains with the carry flag; the carry lies in the last operand, that the lowering adds.
template <class T, bool kIn, bool kOut, bool kSubtract>
void carry_add(Warp& warp, const Instruction& i, LaneMask mask) {
  const T* a = lanes<T>(warp, i.operands[1]);
  const T* b = lanes<T>(warp, i.operands[2]);
  LaneMask& carry = predicate(warp, i.operands[3]);
  LaneMask out = 0;
  T result[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const u128 in = kIn ? carry >> lane & 1 : (kSubtract ? 1 : 0);
    const u128 sum = u128{a[lane]} + (kSubtract ? static_cast<T>(~b[lane]) : b[lane]) + in;
    result[lane] = static_cast<T>(sum);
    out |= static_cast<LaneMask>(sum >> (8 * sizeof(T)) & 1) << lane;
  }
  write_operand<T>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
  if (kOut) carry = (carry & ~mask) | (out & mask);
}

// A product's half plus a number, in a chain.
template <bool kHigh, bool kIn, bool kOut>
void carry_mad(Warp& warp, const Instruction& i, LaneMask mask) {
  const u32* a = lanes<u32>(warp, i.operands[1]);
  const u32* b = lanes<u32>(warp, i.operands[2]);
  const u32* c = lanes<u32>(warp, i.operands[3]);
  LaneMask& carry = predicate(warp, i.operands[4]);
  LaneMask out = 0;
  u32 result[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const u64 product = u64{a[lane]} * b[lane];
    const u64 sum = (kHigh ? product >> 32 : product & 0xffffffff) + c[lane] + (kIn ? carry >> lane & 1 : 0);
    result[lane] = static_cast<u32>(sum);
    out |= static_cast<LaneMask>(sum >> 32 & 1) << lane;
  }
  write_operand<u32>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
  if (kOut) carry = (carry & ~mask) | (out & mask);
}

template <bool kHigh>
void add_carry_mad(FormTable& t, const std::string& half) {
  t.add("mad." + half + ".cc.u32", {&carry_mad<kHigh, false, true>, "4=444x"});
  t.add("madc." + half + ".u32", {&carry_mad<kHigh, true, false>, "4=444x"});
  t.add("madc." + half + ".cc.u32", {&carry_mad<kHigh, true, true>, "4=444x"});
}

template <class T>
void add_carry(FormTable& t, const std::string& type, char size) {
  const std::string slots = std::string{size, '=', size, size, 'x'};
  t.add("add.cc." + type, {&carry_add<T, false, true, false>, slots});
  t.add("addc." + type, {&carry_add<T, true, false, false>, slots});
  t.add("addc.cc." + type, {&carry_add<T, true, true, false>, slots});
  t.add("sub.cc." + type, {&carry_add<T, false, true, true>, slots});
  t.add("subc." + type, {&carry_add<T, true, false, true>, slots});
  t.add("subc.cc." + type, {&carry_add<T, true, true, true>, slots});
}

}  // namespace

void add_integer_forms(FormTable& t) {
  add_type<s16>(t, "s16");
  add_type<u16>(t, "u16");
  add_type<s32>(t, "s32");
  add_type<u32>(t, "u32");
  add_type<s64>(t, "s64");
  add_type<u64>(t, "u64");
  add_wide<s16, s32>(t, "s16");
  add_wide<u16, u32>(t, "u16");
  add_wide<s32, s64>(t, "s32");
  add_wide<u32, u64>(t, "u32");
  add_lanewise<AddSaturate, s32, s32, s32>(t, "add.sat.s32");
  add_lanewise<SubSaturate, s32, s32, s32>(t, "sub.sat.s32");
  add_dot<s8, s8>(t, "s32.s32");
  add_dot<s8, u8>(t, "s32.u32");
  add_dot<u8, s8>(t, "u32.s32");
  add_dot<u8, u8>(t, "u32.u32");
  for (const char* type : {"u32", "s32", "b32"}) add_carry<u32>(t, type, '4');
  for (const char* type : {"u64", "s64", "b64"}) add_carry<u64>(t, type, '8');
  add_carry_mad<false>(t, "lo");
  add_carry_mad<true>(t, "hi");
}

}  // namespace tramontane::emulator
