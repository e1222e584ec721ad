// Logic, shifts, bit fields, moves and selections.
#include <bit>

#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

template <class T>
struct And {
  T operator()(T a, T b) const { return static_cast<T>(a & b); }
};
template <class T>
struct Or {
  T operator()(T a, T b) const { return static_cast<T>(a | b); }
};
template <class T>
struct Xor {
  T operator()(T a, T b) const { return static_cast<T>(a ^ b); }
};
template <class T>
struct Not {
  T operator()(T a) const { return static_cast<T>(~a); }
};
template <class T>
struct CNot {
  T operator()(T a) const { return a == 0; }
};
template <class T>
struct Copy {
  T operator()(T a) const { return a; }
};

template <class T>
constexpr u32 kBits = 8 * sizeof(T);

template <class T>
struct ShiftLeft {
  T operator()(T a, u32 by) const { return by >= kBits<T> ? T{0} : static_cast<T>(a << by); }
};
template <class T>
struct ShiftRight {
  T operator()(T a, u32 by) const {
    if (by >= kBits<T>) return a < 0 ? static_cast<T>(-1) : T{0};
    return static_cast<T>(a >> by);
  }
};
template <bool kWrap>
struct FunnelLeft {
  u32 operator()(u32 low, u32 high, u32 by) const {
    by = kWrap ? by & 31 : (by > 32 ? 32 : by);
    return by == 32 ? low : static_cast<u32>((u64{high} << 32 | low) >> (32 - by));
  }
};
template <bool kWrap>
struct FunnelRight {
  u32 operator()(u32 low, u32 high, u32 by) const {
    by = kWrap ? by & 31 : (by > 32 ? 32 : by);
    return static_cast<u32>((u64{high} << 32 | low) >> by);
  }
};
template <class T>
struct Popc {
  u32 operator()(T a) const { return static_cast<u32>(std::popcount(a)); }
};
template <class T>
struct Clz {
  u32 operator()(T a) const { return static_cast<u32>(std::countl_zero(a)); }
};
template <class T>
struct Reverse {
  T operator()(T a) const {
    T result = 0;
    for (u32 k = 0; k < kBits<T>; ++k) result |= (a >> k & 1) << (kBits<T> - 1 - k);
    return result;
  }
};
// Position of the highest bit that differs from the sign; from the top when kShiftAmount. All ones: there is
// none.
template <class T, bool kShiftAmount>
struct FindBit {
  u32 operator()(T a) const {
    using U = std::make_unsigned_t<T>;
    const U bits = static_cast<U>(a < 0 ? ~a : a);
    if (bits == 0) return ~0u;
    const u32 from_top = static_cast<u32>(std::countl_zero(bits));
    return kShiftAmount ? from_top : kBits<T> - 1 - from_top;
  }
};
template <class T>
struct ExtractField {
  T operator()(T a, u32 position, u32 length) const {
    position &= 255;
    length &= 255;
    if (length == 0) return 0;
    constexpr u32 kTop = kBits<T> - 1;
    const u32 last = position + length - 1 < kTop ? position + length - 1 : kTop;
    const bool sign = std::is_signed_v<T> && (a >> last & 1);
    T result = 0;
    if (position <= kTop) {
      using U = std::make_unsigned_t<T>;
      const U field = static_cast<U>(static_cast<U>(a) >> position);
      const u32 width = last - position + 1;
      result = static_cast<T>(width > kTop ? field : field & ((U{1} << width) - 1));
      if (sign && width <= kTop) result = static_cast<T>(result | static_cast<T>(~U{0} << width));
    } else if (sign) {
      result = static_cast<T>(-1);
    }
    return result;
  }
};
template <class T>
struct InsertField {
  T operator()(T field, T into, u32 position, u32 length) const {
    position &= 255;
    length &= 255;
    if (length == 0 || position >= kBits<T>) return into;
    const T ones = length >= kBits<T> ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << length) - 1);
    const T mask = static_cast<T>(ones << position);
    return static_cast<T>((into & ~mask) | (static_cast<T>(field << position) & mask));
  }
};
template <bool kWrap>
struct BitMask {
  u32 operator()(u32 position, u32 length) const {
    if (kWrap) position &= 31, length &= 31;
    if (position >= 32 || length == 0) return 0;
    return (length >= 32 ? ~0u : (1u << length) - 1) << position;
  }
};
struct Permute {
  u32 operator()(u32 a, u32 b, u32 selector) const {
    const u64 bytes = u64{b} << 32 | a;
    u32 result = 0;
    for (int k = 0; k < 4; ++k) {
      const u32 select = selector >> 4 * k & 15;
      u32 byte = static_cast<u32>(bytes >> 8 * (select & 7)) & 255;
      if (select & 8) byte = byte & 128 ? 255 : 0;
      result |= byte << 8 * k;
    }
    return result;
  }
};

void lop3(Warp& warp, const Instruction& i, LaneMask mask) {
  const u32* a = lanes<u32>(warp, i.operands[1]);
  const u32* b = lanes<u32>(warp, i.operands[2]);
  const u32* c = lanes<u32>(warp, i.operands[3]);
  u32 minterm[8];
  for (u32 k = 0; k < 8; ++k) minterm[k] = i.immediate >> k & 1 ? ~0u : 0;
  write_operand<u32>(warp, i.operands[0], mask, [&](int lane) {
    const u32 x = a[lane], y = b[lane], z = c[lane];
    const u32 low =
        (~y & ((~z & minterm[0]) | (z & minterm[1]))) | (y & ((~z & minterm[2]) | (z & minterm[3])));
    const u32 high =
        (~y & ((~z & minterm[4]) | (z & minterm[5]))) | (y & ((~z & minterm[6]) | (z & minterm[7])));
    return (~x & low) | (x & high);
  });
}

template <class T>
void select(Warp& warp, const Instruction& i, LaneMask mask) {
  const T* a = lanes<T>(warp, i.operands[1]);
  const T* b = lanes<T>(warp, i.operands[2]);
  const LaneMask which = predicate(warp, i.operands[3]);
  write_operand<T>(warp, i.operands[0], mask,
                   [&](int lane) { return which >> lane & 1 ? a[lane] : b[lane]; });
}

// Predicates are lane masks: one operation serves all lanes.
enum class Logic { kAnd, kOr, kXor, kNot, kCopy };
template <Logic kLogic>
void predicate_logic(Warp& warp, const Instruction& i, LaneMask mask) {
  const LaneMask a = predicate(warp, i.operands[1]);
  LaneMask b = 0;
  if constexpr (kLogic != Logic::kNot && kLogic != Logic::kCopy) b = predicate(warp, i.operands[2]);
  const LaneMask result = kLogic == Logic::kAnd   ? a & b
                          : kLogic == Logic::kOr  ? a | b
                          : kLogic == Logic::kXor ? a ^ b
                          : kLogic == Logic::kNot ? ~a
                                                  : a;
  write_predicate(warp, i.operands[0], mask, result);
}

template <class T>
void add_logic(FormTable& t, const std::string& bits) {
  add_lanewise<And<T>, T, T, T>(t, "and.b" + bits);
  add_lanewise<Or<T>, T, T, T>(t, "or.b" + bits);
  add_lanewise<Xor<T>, T, T, T>(t, "xor.b" + bits);
  add_lanewise<Not<T>, T, T>(t, "not.b" + bits);
  add_lanewise<CNot<T>, T, T>(t, "cnot.b" + bits);
  add_lanewise<ShiftLeft<T>, T, T, u32>(t, "shl.b" + bits);
  for (const char* type : {"b", "u"}) add_lanewise<ShiftRight<T>, T, T, u32>(t, "shr." + (type + bits));
  using S = std::make_signed_t<T>;
  add_lanewise<ShiftRight<S>, S, S, u32>(t, "shr.s" + bits);
  const std::string slots = {slot_of<T>(), '=', slot_of<T>(), slot_of<T>(), 'p'};
  for (const char* type : {"b", "u", "s", "f"}) {
    if (*type == 'f' && bits == "16") continue;
    add_lanewise<Copy<T>, T, T>(t, "mov." + (type + bits));
    t.add("selp." + (type + bits), {&select<T>, slots});
  }
}

template <class T>
void add_counting(FormTable& t, const std::string& bits) {
  add_lanewise<Popc<T>, u32, T>(t, "popc.b" + bits);
  add_lanewise<Clz<T>, u32, T>(t, "clz.b" + bits);
  add_lanewise<Reverse<T>, T, T>(t, "brev.b" + bits);
  add_lanewise<InsertField<T>, T, T, T, u32, u32>(t, "bfi.b" + bits);
  using S = std::make_signed_t<T>;
  add_lanewise<ExtractField<T>, T, T, u32, u32>(t, "bfe.u" + bits);
  add_lanewise<ExtractField<S>, S, S, u32, u32>(t, "bfe.s" + bits);
  add_lanewise<FindBit<T, false>, u32, T>(t, "bfind.u" + bits);
  add_lanewise<FindBit<S, false>, u32, S>(t, "bfind.s" + bits);
  add_lanewise<FindBit<T, true>, u32, T>(t, "bfind.shiftamt.u" + bits);
  add_lanewise<FindBit<S, true>, u32, S>(t, "bfind.shiftamt.s" + bits);
}

}  // namespace

void add_bit_forms(FormTable& t) {
  add_logic<u16>(t, "16");
  add_logic<u32>(t, "32");
  add_logic<u64>(t, "64");
  add_counting<u32>(t, "32");
  add_counting<u64>(t, "64");
  add_lanewise<FunnelLeft<true>, u32, u32, u32, u32>(t, "shf.l.wrap.b32");
  add_lanewise<FunnelLeft<false>, u32, u32, u32, u32>(t, "shf.l.clamp.b32");
  add_lanewise<FunnelRight<true>, u32, u32, u32, u32>(t, "shf.r.wrap.b32");
  add_lanewise<FunnelRight<false>, u32, u32, u32, u32>(t, "shf.r.clamp.b32");
  add_lanewise<BitMask<false>, u32, u32, u32>(t, "bmsk.clamp.b32");
  add_lanewise<BitMask<true>, u32, u32, u32>(t, "bmsk.wrap.b32");
  add_lanewise<Permute, u32, u32, u32, u32>(t, "prmt.b32");
  t.add("lop3.b32", {&lop3, "4=444i"});
  t.add("and.pred", {&predicate_logic<Logic::kAnd>, "p=pp"});
  t.add("or.pred", {&predicate_logic<Logic::kOr>, "p=pp"});
  t.add("xor.pred", {&predicate_logic<Logic::kXor>, "p=pp"});
  t.add("not.pred", {&predicate_logic<Logic::kNot>, "p=p"});
  t.add("mov.pred", {&predicate_logic<Logic::kCopy>, "p=p"});
}

}  // namespace tramontane::emulator
