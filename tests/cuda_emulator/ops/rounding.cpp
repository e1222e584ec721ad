// Arithmetic with a rounding other than to nearest. This file is compiled so that the host's rounding mode
// may change.
#include <cfenv>

#include "tests/cuda_emulator/ops/float_math.h"
#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

// Performs Op under the host's rounding mode aux. The barriers keep the arithmetic between the two changes of
// the mode.
template <class Op, class T, class... S>
void directed(Warp& warp, const Instruction& i, LaneMask mask) {
  alignas(64) T result[kLanes];
  std::fesetround(static_cast<int>(i.aux));
  [&]<std::size_t... K>(std::index_sequence<K...>) {
    const std::tuple<const S*...> sources{lanes<const S>(warp, i.operands[K + 1])...};
    asm volatile("" ::: "memory");
    for (int lane = 0; lane < kLanes; ++lane)
      result[lane] = static_cast<T>(Op()(std::get<K>(sources)[lane]...));
    asm volatile("" ::"r"(result) : "memory");
  }
  (std::index_sequence_for<S...>{});
  std::fesetround(FE_TONEAREST);
  write_operand<T>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
}

struct Mode {
  const char* name;
  int value;
};
constexpr Mode kModes[] = {{".rz", FE_TOWARDZERO}, {".rm", FE_DOWNWARD}, {".rp", FE_UPWARD}};

template <class Op, class... S>
void add_f32(FormTable& t, const std::string& op, const std::string& slots) {
  for (const Mode& mode : kModes) {
    const u32 aux = static_cast<u32>(mode.value);
    t.add(op + mode.name + ".f32", {&directed<Modified<Op, false, false>, f32, S...>, slots, aux});
    t.add(op + mode.name + ".ftz.f32", {&directed<Modified<Op, true, false>, f32, S...>, slots, aux});
    t.add(op + mode.name + ".sat.f32", {&directed<Modified<Op, false, true>, f32, S...>, slots, aux});
    t.add(op + mode.name + ".ftz.sat.f32", {&directed<Modified<Op, true, true>, f32, S...>, slots, aux});
  }
}

template <class Op, class... S>
void add_f64(FormTable& t, const std::string& op, const std::string& slots) {
  for (const Mode& mode : kModes)
    t.add(op + mode.name + ".f64", {&directed<Op, f64, S...>, slots, static_cast<u32>(mode.value)});
}

template <class T>
struct To {
  template <class S>
  T operator()(S value) const {
    return static_cast<T>(value);
  }
};

template <class T, class S>
void add_conversion(FormTable& t, const std::string& to, const std::string& from) {
  for (const Mode& mode : kModes)
    t.add(
        "cvt" + std::string(mode.name) + "." + to + "." + from,
        {&directed<To<T>, T, S>, std::string{slot_of<T>(), '=', slot_of<S>()}, static_cast<u32>(mode.value)});
}

template <class S>
void add_from_integer(FormTable& t, const std::string& from) {
  add_conversion<f32, S>(t, "f32", from);
  add_conversion<f64, S>(t, "f64", from);
}

}  // namespace

void add_rounding_forms(FormTable& t) {
  add_f32<FloatAdd, f32, f32>(t, "add", "4=44");
  add_f32<FloatSub, f32, f32>(t, "sub", "4=44");
  add_f32<FloatMul, f32, f32>(t, "mul", "4=44");
  add_f32<FloatFma, f32, f32, f32>(t, "fma", "4=444");
  add_f32<FloatDiv, f32, f32>(t, "div", "4=44");
  add_f32<FloatRcp, f32>(t, "rcp", "4=4");
  add_f32<FloatSqrt, f32>(t, "sqrt", "4=4");
  add_f64<FloatAdd, f64, f64>(t, "add", "8=88");
  add_f64<FloatSub, f64, f64>(t, "sub", "8=88");
  add_f64<FloatMul, f64, f64>(t, "mul", "8=88");
  add_f64<FloatFma, f64, f64, f64>(t, "fma", "8=888");
  add_f64<FloatDiv, f64, f64>(t, "div", "8=88");
  add_f64<FloatRcp, f64>(t, "rcp", "8=8");
  add_f64<FloatSqrt, f64>(t, "sqrt", "8=8");
  add_conversion<f32, f64>(t, "f32", "f64");
  add_from_integer<u16>(t, "u16");
  add_from_integer<s16>(t, "s16");
  add_from_integer<u32>(t, "u32");
  add_from_integer<s32>(t, "s32");
  add_from_integer<u64>(t, "u64");
  add_from_integer<s64>(t, "s64");
}

}  // namespace tramontane::emulator
