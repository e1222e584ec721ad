// Single and double precision arithmetic, rounded to nearest even.
#include "tests/cuda_emulator/ops/float_math.h"
#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

// One NaN gives the other operand, unless .NaN; -0 is below +0.
template <class T, bool kMax, bool kNan>
struct Extreme {
  T operator()(T a, T b) const {
    if (kNan && (a != a || b != b)) return std::numeric_limits<T>::quiet_NaN();
    if (a != a) return b;
    if (b != b) return a;
    if (a == b) return std::signbit(a) == kMax ? b : a;
    return (a < b) == kMax ? b : a;
  }
};
struct AbsBits {
  u32 operator()(u32 a) const { return a & 0x7fffffff; }
};
struct NegBits {
  u32 operator()(u32 a) const { return a ^ 0x80000000; }
};
struct AbsBits64 {
  u64 operator()(u64 a) const { return a & ~(1ull << 63); }
};
struct NegBits64 {
  u64 operator()(u64 a) const { return a ^ 1ull << 63; }
};
struct Identity {
  f32 operator()(f32 a) const { return a; }
};
struct FlushedAbs {
  f32 operator()(f32 a) const { return std::fabs(flush(a)); }
};
struct FlushedNeg {
  f32 operator()(f32 a) const { return -flush(a); }
};
struct CopySign {  // PTX: the first operand's sign on the second operand
  template <class T>
  T operator()(T a, T b) const {
    return std::copysign(b, a);
  }
};

enum class Test { kFinite, kInfinite, kNumber, kNotANumber, kNormal, kSubnormal };
template <class T, Test kTest>
void test_property(Warp& warp, const Instruction& i, LaneMask mask) {
  const T* a = lanes<T>(warp, i.operands[1]);
  LaneMask result = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int kind = std::fpclassify(a[lane]);
    const bool yes = kTest == Test::kFinite       ? std::isfinite(a[lane])
                     : kTest == Test::kInfinite   ? kind == FP_INFINITE
                     : kTest == Test::kNumber     ? kind != FP_NAN
                     : kTest == Test::kNotANumber ? kind == FP_NAN
                     : kTest == Test::kNormal     ? kind == FP_NORMAL
                                                  : kind == FP_SUBNORMAL;
    result |= static_cast<LaneMask>(yes) << lane;
  }
  write_predicate(warp, i.operands[0], mask, result);
}

template <class T, char kSlot>
void add_tests(FormTable& t, const std::string& type) {
  const std::string slots{'p', '=', kSlot};
  t.add("testp.finite." + type, {&test_property<T, Test::kFinite>, slots});
  t.add("testp.infinite." + type, {&test_property<T, Test::kInfinite>, slots});
  t.add("testp.number." + type, {&test_property<T, Test::kNumber>, slots});
  t.add("testp.notanumber." + type, {&test_property<T, Test::kNotANumber>, slots});
  t.add("testp.normal." + type, {&test_property<T, Test::kNormal>, slots});
  t.add("testp.subnormal." + type, {&test_property<T, Test::kSubnormal>, slots});
}

// Op under every way to write "to nearest": bare where PTX allows it, .rn, with .ftz and .sat.
template <class Op, class... S>
void add_f32(FormTable& t, const std::string& op, std::initializer_list<const char*> roundings) {
  for (const std::string rounding : roundings) {
    add_lanewise<Modified<Op, false, false>, f32, S...>(t, op + rounding + ".f32");
    add_lanewise<Modified<Op, true, false>, f32, S...>(t, op + rounding + ".ftz.f32");
    add_lanewise<Modified<Op, false, true>, f32, S...>(t, op + rounding + ".sat.f32");
    add_lanewise<Modified<Op, true, true>, f32, S...>(t, op + rounding + ".ftz.sat.f32");
  }
}

template <bool kMax>
void add_extremes(FormTable& t, const std::string& op) {
  add_lanewise<Extreme<f32, kMax, false>, f32, f32, f32>(t, op + ".f32");
  add_lanewise<Modified<Extreme<f32, kMax, false>, true, false>, f32, f32, f32>(t, op + ".ftz.f32");
  add_lanewise<Extreme<f32, kMax, true>, f32, f32, f32>(t, op + ".NaN.f32");
  add_lanewise<Modified<Extreme<f32, kMax, true>, true, false>, f32, f32, f32>(t, op + ".ftz.NaN.f32");
  add_lanewise<Extreme<f64, kMax, false>, f64, f64, f64>(t, op + ".f64");
}

void add_f64(FormTable& t) {
  for (const std::string rounding : {"", ".rn"}) {
    add_lanewise<FloatAdd, f64, f64, f64>(t, "add" + rounding + ".f64");
    add_lanewise<FloatSub, f64, f64, f64>(t, "sub" + rounding + ".f64");
    add_lanewise<FloatMul, f64, f64, f64>(t, "mul" + rounding + ".f64");
  }
  add_lanewise<FloatFma, f64, f64, f64, f64>(t, "fma.rn.f64");
  add_lanewise<FloatFma, f64, f64, f64, f64>(t, "mad.rn.f64");
  add_lanewise<FloatDiv, f64, f64, f64>(t, "div.rn.f64");
  add_lanewise<FloatRcp, f64, f64>(t, "rcp.rn.f64");
  add_lanewise<FloatSqrt, f64, f64>(t, "sqrt.rn.f64");
  add_lanewise<AbsBits64, u64, u64>(t, "abs.f64");
  add_lanewise<NegBits64, u64, u64>(t, "neg.f64");
  add_lanewise<CopySign, f64, f64, f64>(t, "copysign.f64");
}

}  // namespace

void add_float_forms(FormTable& t) {
  add_f32<FloatAdd, f32, f32>(t, "add", {"", ".rn"});
  add_f32<FloatSub, f32, f32>(t, "sub", {"", ".rn"});
  add_f32<FloatMul, f32, f32>(t, "mul", {"", ".rn"});
  add_f32<FloatFma, f32, f32, f32>(t, "fma", {".rn"});
  add_f32<FloatFma, f32, f32, f32>(t, "mad", {".rn"});
  add_f32<FloatDiv, f32, f32>(t, "div", {".rn", ".full", ".approx"});
  add_f32<FloatRcp, f32>(t, "rcp", {".rn", ".approx"});
  add_f32<FloatSqrt, f32>(t, "sqrt", {".rn", ".approx"});
  add_extremes<false>(t, "min");
  add_extremes<true>(t, "max");
  add_lanewise<AbsBits, u32, u32>(t, "abs.f32");
  add_lanewise<NegBits, u32, u32>(t, "neg.f32");
  add_lanewise<FlushedAbs, f32, f32>(t, "abs.ftz.f32");
  add_lanewise<FlushedNeg, f32, f32>(t, "neg.ftz.f32");
  add_lanewise<CopySign, f32, f32, f32>(t, "copysign.f32");
  add_tests<f32, '4'>(t, "f32");
  add_tests<f64, '8'>(t, "f64");
  add_f64(t);
}

}  // namespace tramontane::emulator
