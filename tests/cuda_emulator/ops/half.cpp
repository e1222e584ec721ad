// Half and bfloat16 arithmetic, single and in pairs. Each result is the exact one, rounded once.
#include <limits>

#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

struct Half {
  static f64 decode(u16 bits) { return half_to_f32(bits); }
  static u16 encode(f64 value) { return f64_to_half(value); }
};
struct Bf16 {
  static f64 decode(u16 bits) { return bf16_to_f32(bits); }
  static u16 encode(f64 value) { return static_cast<u16>(emulator::encode<Bf16Format>(value)); }
};

// Products of two 11-bit significands are exact in double; sums are taken to odd, so the last rounding is the
// only one.
struct SmallAdd {
  f64 operator()(f64 a, f64 b) const { return add_to_odd(a, b); }
};
struct SmallSub {
  f64 operator()(f64 a, f64 b) const { return add_to_odd(a, -b); }
};
struct SmallMul {
  f64 operator()(f64 a, f64 b) const { return a * b; }
};
struct SmallFma {
  f64 operator()(f64 a, f64 b, f64 c) const { return add_to_odd(a * b, c); }
};
struct SmallFmaRelu {
  f64 operator()(f64 a, f64 b, f64 c) const {
    const f64 r = add_to_odd(a * b, c);
    return r < 0 ? 0.0 : r;
  }
};
struct Saturated {
  static f64 clamp(f64 x) { return x > 0 ? (x < 1 ? x : 1.0) : 0.0; }
};
template <class Op>
struct SmallSat : Saturated {
  template <class... S>
  f64 operator()(S... s) const {
    return clamp(Op()(s...));
  }
};
template <bool kMax, bool kNan>
struct SmallExtreme {
  f64 operator()(f64 a, f64 b) const {
    if (kNan && (a != a || b != b)) return std::numeric_limits<f64>::quiet_NaN();
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) == kMax ? b : a;
    return (a < b) == kMax ? b : a;
  }
};

template <class Format, class Op>
struct Single {
  template <class... S>
  u16 operator()(S... s) const {
    return Format::encode(Op()(Format::decode(s)...));
  }
};
template <class Format, class Op>
struct Pair {
  template <class... S>
  u32 operator()(S... s) const {
    const u32 low = Format::encode(Op()(Format::decode(static_cast<u16>(s))...));
    const u32 high = Format::encode(Op()(Format::decode(static_cast<u16>(s >> 16))...));
    return high << 16 | low;
  }
};
template <u32 kMask>
struct ClearBits {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(a & ~kMask);
  }
};
template <u32 kMask>
struct FlipBits {
  template <class T>
  T operator()(T a) const {
    return static_cast<T>(a ^ kMask);
  }
};

template <class Format, class Op, class... S>
void add_both(FormTable& t, const std::string& op, const std::string& type) {
  if constexpr (sizeof...(S) == 3) {
    add_lanewise<Single<Format, Op>, u16, u16, u16, u16>(t, op + "." + type);
    add_lanewise<Pair<Format, Op>, u32, u32, u32, u32>(t, op + "." + type + "x2");
  } else {
    add_lanewise<Single<Format, Op>, u16, u16, u16>(t, op + "." + type);
    add_lanewise<Pair<Format, Op>, u32, u32, u32>(t, op + "." + type + "x2");
  }
}

template <class Format>
void add_format(FormTable& t, const std::string& type) {
  for (const std::string rounding : {"", ".rn"}) {
    add_both<Format, SmallAdd>(t, "add" + rounding, type);
    add_both<Format, SmallSub>(t, "sub" + rounding, type);
    add_both<Format, SmallMul>(t, "mul" + rounding, type);
    add_both<Format, SmallSat<SmallAdd>>(t, "add" + rounding + ".sat", type);
    add_both<Format, SmallSat<SmallSub>>(t, "sub" + rounding + ".sat", type);
    add_both<Format, SmallSat<SmallMul>>(t, "mul" + rounding + ".sat", type);
  }
  add_both<Format, SmallFma, u16, u16, u16>(t, "fma.rn", type);
  add_both<Format, SmallSat<SmallFma>, u16, u16, u16>(t, "fma.rn.sat", type);
  add_both<Format, SmallFmaRelu, u16, u16, u16>(t, "fma.rn.relu", type);
  add_both<Format, SmallExtreme<false, false>>(t, "min", type);
  add_both<Format, SmallExtreme<true, false>>(t, "max", type);
  add_both<Format, SmallExtreme<false, true>>(t, "min.NaN", type);
  add_both<Format, SmallExtreme<true, true>>(t, "max.NaN", type);
  add_lanewise<ClearBits<0x8000>, u16, u16>(t, "abs." + type);
  add_lanewise<FlipBits<0x8000>, u16, u16>(t, "neg." + type);
  add_lanewise<ClearBits<0x80008000>, u32, u32>(t, "abs." + type + "x2");
  add_lanewise<FlipBits<0x80008000>, u32, u32>(t, "neg." + type + "x2");
}

}  // namespace

void add_half_forms(FormTable& t) {
  add_format<Half>(t, "f16");
  add_format<Bf16>(t, "bf16");
}

}  // namespace tramontane::emulator
