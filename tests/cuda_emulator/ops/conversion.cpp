// cvt between all types, to nearest even or to an integer; directed roundings to f32 and f64 are in
// rounding.cpp.
#include <limits>

#include "tests/cuda_emulator/ops/float_math.h"
#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

// How a floating-point type is held and read.
struct F16 {
  using Bits = u16;
  static f64 decode(u16 bits) { return half_to_f32(bits); }
};
struct B16 {
  using Bits = u16;
  static f64 decode(u16 bits) { return bf16_to_f32(bits); }
};
struct F32 {
  using Bits = f32;
  static f64 decode(f32 value) { return value; }
};
struct F64 {
  using Bits = f64;
  static f64 decode(f64 value) { return value; }
};

template <class D, class S>
struct IntegerToInteger {
  D operator()(S s) const { return static_cast<D>(s); }
};
template <class D, class S>
struct Clamped {
  D operator()(S s) const {
    if (std::cmp_less(s, std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
    if (std::cmp_greater(s, std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
    return static_cast<D>(s);
  }
};

template <Rounding kRounding>
f64 to_integral(f64 x) {
  switch (kRounding) {
    case Rounding::kNearestEven:
      return std::nearbyint(x);
    case Rounding::kZero:
      return std::trunc(x);
    case Rounding::kDown:
      return std::floor(x);
    case Rounding::kUp:
      return std::ceil(x);
  }
  return x;
}

// What NaN becomes: the top bit alone where one of the two types has 64 bits, else 0.
template <class D, class Source>
constexpr D integer_of_nan() {
  if (sizeof(D) < 8 && sizeof(typename Source::Bits) < 8) return 0;
  return static_cast<D>(u64{1} << (8 * sizeof(D) - 1));
}

// What lies outside becomes the nearest number of the type.
template <class D, class Source, Rounding kRounding, bool kFlush>
struct FloatToInteger {
  D operator()(typename Source::Bits s) const {
    f64 x = Source::decode(s);
    if (kFlush && std::fabs(x) < std::numeric_limits<f32>::min()) x = 0;
    if (x != x) return integer_of_nan<D, Source>();
    x = to_integral<kRounding>(x);
    if (x <= static_cast<f64>(std::numeric_limits<D>::min())) return std::numeric_limits<D>::min();
    if (x >= static_cast<f64>(std::numeric_limits<D>::max())) return std::numeric_limits<D>::max();
    return static_cast<D>(x);
  }
};
template <class D, class S>
struct IntegerToFloat {
  D operator()(S s) const { return static_cast<D>(s); }
};
template <class S>
struct IntegerToFloatSaturated {
  f32 operator()(S s) const { return saturate(static_cast<f32>(s)); }
};
template <class S, class Format, Rounding kRounding>
struct IntegerToSmall {
  u16 operator()(S s) const { return static_cast<u16>(encode<Format>(static_cast<f64>(s), kRounding)); }
};

// To a small format; relu turns negative numbers and NaN into zero... except that NaN stays NaN.
template <class Source, class Format, Rounding kRounding, bool kRelu, bool kSaturate>
struct ToSmall {
  u16 operator()(typename Source::Bits s) const {
    f64 x = Source::decode(s);
    if (kRelu && x < 0) x = 0;
    if (kSaturate) x = saturate(x);
    return static_cast<u16>(encode<Format>(x, kRounding));
  }
};
template <class Format, Rounding kRounding, bool kRelu>
struct ToPair {
  u32 operator()(f32 high, f32 low) const {
    const ToSmall<F32, Format, kRounding, kRelu, false> convert;
    return static_cast<u32>(convert(high)) << 16 | convert(low);
  }
};
struct ToBf16 {
  u16 operator()(f32 x) const { return f32_to_bf16(x); }
};
struct ToBf16Pair {
  u32 operator()(f32 high, f32 low) const {
    return static_cast<u32>(f32_to_bf16(high)) << 16 | f32_to_bf16(low);
  }
};
// .rna: to nearest, halves away from zero. The low 13 bits are the hardware's business; zero here.
struct ToTf32 {
  u32 operator()(f32 x) const {
    const u32 bits = std::bit_cast<u32>(x);
    if ((bits & 0x7f800000) == 0x7f800000) return bits & 0x7fffff ? 0x7fffffff : bits;
    return (bits + 0x1000) & ~0x1fffu;
  }
};
template <class Source, bool kFlush, bool kSaturate>
struct ToF32 {
  f32 operator()(typename Source::Bits s) const {
    f32 x = static_cast<f32>(Source::decode(s));
    if (kFlush) x = flush(x);
    return kSaturate ? saturate(x) : x;
  }
};
template <class Source>
struct ToF64 {
  f64 operator()(typename Source::Bits s) const { return Source::decode(s); }
};
template <Rounding kRounding, bool kFlush, bool kSaturate>
struct RoundF32 {
  f32 operator()(f32 x) const {
    if (kFlush) x = flush(x);
    x = static_cast<f32>(to_integral<kRounding>(x));
    return kSaturate ? saturate(x) : x;
  }
};
template <Rounding kRounding>
struct RoundF64 {
  f64 operator()(f64 x) const { return to_integral<kRounding>(x); }
};
template <Rounding kRounding>
struct RoundF16 {
  u16 operator()(u16 x) const { return f64_to_half(to_integral<kRounding>(half_to_f32(x))); }
};

template <class D, class S>
void add_integers(FormTable& t, const std::string& d, const std::string& s) {
  add_lanewise<IntegerToInteger<D, S>, D, S>(t, "cvt." + d + "." + s);
  add_lanewise<Clamped<D, S>, D, S>(t, "cvt.sat." + d + "." + s);
}

template <class D, class Source, Rounding kRounding>
void add_float_to_integer(FormTable& t, const std::string& rounding, const std::string& d,
                          const std::string& s) {
  using Bits = typename Source::Bits;
  for (const std::string saturation : {"", ".sat"}) {  // without .sat it clamps all the same
    add_lanewise<FloatToInteger<D, Source, kRounding, false>, D, Bits>(
        t, "cvt" + rounding + saturation + "." + d + "." + s);
    if constexpr (std::is_same_v<Source, F32>)
      add_lanewise<FloatToInteger<D, Source, kRounding, true>, D, Bits>(
          t, "cvt" + rounding + ".ftz" + saturation + "." + d + "." + s);
  }
}

template <class D, class Source>
void add_all_roundings(FormTable& t, const std::string& d, const std::string& s) {
  add_float_to_integer<D, Source, Rounding::kNearestEven>(t, ".rni", d, s);
  add_float_to_integer<D, Source, Rounding::kZero>(t, ".rzi", d, s);
  add_float_to_integer<D, Source, Rounding::kDown>(t, ".rmi", d, s);
  add_float_to_integer<D, Source, Rounding::kUp>(t, ".rpi", d, s);
}

// All conversions with the integer type T on one side.
template <class T>
void add_integer(FormTable& t, const std::string& type) {
  add_integers<u8, T>(t, "u8", type);
  add_integers<s8, T>(t, "s8", type);
  add_integers<u16, T>(t, "u16", type);
  add_integers<s16, T>(t, "s16", type);
  add_integers<u32, T>(t, "u32", type);
  add_integers<s32, T>(t, "s32", type);
  add_integers<u64, T>(t, "u64", type);
  add_integers<s64, T>(t, "s64", type);
  add_all_roundings<T, F16>(t, type, "f16");
  add_all_roundings<T, B16>(t, type, "bf16");
  add_all_roundings<T, F32>(t, type, "f32");
  add_all_roundings<T, F64>(t, type, "f64");
  add_lanewise<IntegerToFloat<f32, T>, f32, T>(t, "cvt.rn.f32." + type);
  add_lanewise<IntegerToFloat<f64, T>, f64, T>(t, "cvt.rn.f64." + type);
  add_lanewise<IntegerToFloatSaturated<T>, f32, T>(t, "cvt.rn.sat.f32." + type);
  add_lanewise<IntegerToSmall<T, HalfFormat, Rounding::kNearestEven>, u16, T>(t, "cvt.rn.f16." + type);
  add_lanewise<IntegerToSmall<T, HalfFormat, Rounding::kZero>, u16, T>(t, "cvt.rz.f16." + type);
  add_lanewise<IntegerToSmall<T, HalfFormat, Rounding::kDown>, u16, T>(t, "cvt.rm.f16." + type);
  add_lanewise<IntegerToSmall<T, HalfFormat, Rounding::kUp>, u16, T>(t, "cvt.rp.f16." + type);
  // Above 32 bits a double would round before bfloat16 does.
  if constexpr (sizeof(T) <= 4)
    add_lanewise<IntegerToSmall<T, Bf16Format, Rounding::kNearestEven>, u16, T>(t, "cvt.rn.bf16." + type);
}

template <class Format, Rounding kRounding>
void add_to_small(FormTable& t, const std::string& rounding, const std::string& type) {
  add_lanewise<ToPair<Format, kRounding, false>, u32, f32, f32>(t, "cvt" + rounding + "." + type + "x2.f32");
  add_lanewise<ToPair<Format, kRounding, true>, u32, f32, f32>(t,
                                                               "cvt" + rounding + ".relu." + type + "x2.f32");
  add_lanewise<ToSmall<F32, Format, kRounding, false, false>, u16, f32>(
      t, "cvt" + rounding + "." + type + ".f32");
  add_lanewise<ToSmall<F32, Format, kRounding, true, false>, u16, f32>(
      t, "cvt" + rounding + ".relu." + type + ".f32");
  if constexpr (std::is_same_v<Format, HalfFormat>) {
    add_lanewise<ToSmall<F32, Format, kRounding, false, true>, u16, f32>(t,
                                                                         "cvt" + rounding + ".sat.f16.f32");
    add_lanewise<ToSmall<F64, Format, kRounding, false, false>, u16, f64>(t, "cvt" + rounding + ".f16.f64");
  }
}

template <class Source>
void add_to_f32(FormTable& t, const std::string& rounding, const std::string& type) {
  using Bits = typename Source::Bits;
  add_lanewise<ToF32<Source, false, false>, f32, Bits>(t, "cvt" + rounding + ".f32." + type);
  add_lanewise<ToF32<Source, true, false>, f32, Bits>(t, "cvt" + rounding + ".ftz.f32." + type);
  add_lanewise<ToF32<Source, false, true>, f32, Bits>(t, "cvt" + rounding + ".sat.f32." + type);
  add_lanewise<ToF32<Source, true, true>, f32, Bits>(t, "cvt" + rounding + ".ftz.sat.f32." + type);
}

template <Rounding kRounding>
void add_to_integral(FormTable& t, const std::string& rounding) {
  add_lanewise<RoundF32<kRounding, false, false>, f32, f32>(t, "cvt" + rounding + ".f32.f32");
  add_lanewise<RoundF32<kRounding, true, false>, f32, f32>(t, "cvt" + rounding + ".ftz.f32.f32");
  add_lanewise<RoundF32<kRounding, false, true>, f32, f32>(t, "cvt" + rounding + ".sat.f32.f32");
  add_lanewise<RoundF32<kRounding, true, true>, f32, f32>(t, "cvt" + rounding + ".ftz.sat.f32.f32");
  add_lanewise<RoundF64<kRounding>, f64, f64>(t, "cvt" + rounding + ".f64.f64");
  add_lanewise<RoundF16<kRounding>, u16, u16>(t, "cvt" + rounding + ".f16.f16");
}

}  // namespace

void add_conversion_forms(FormTable& t) {
  add_integer<u8>(t, "u8");
  add_integer<s8>(t, "s8");
  add_integer<u16>(t, "u16");
  add_integer<s16>(t, "s16");
  add_integer<u32>(t, "u32");
  add_integer<s32>(t, "s32");
  add_integer<u64>(t, "u64");
  add_integer<s64>(t, "s64");
  add_to_small<HalfFormat, Rounding::kNearestEven>(t, ".rn", "f16");
  add_to_small<HalfFormat, Rounding::kZero>(t, ".rz", "f16");
  add_to_small<Bf16Format, Rounding::kZero>(t, ".rz", "bf16");
  add_lanewise<ToSmall<F32, HalfFormat, Rounding::kDown, false, false>, u16, f32>(t, "cvt.rm.f16.f32");
  add_lanewise<ToSmall<F32, HalfFormat, Rounding::kUp, false, false>, u16, f32>(t, "cvt.rp.f16.f32");
  add_lanewise<ToBf16, u16, f32>(t, "cvt.rn.bf16.f32");
  add_lanewise<ToBf16Pair, u32, f32, f32>(t, "cvt.rn.bf16x2.f32");
  add_lanewise<ToSmall<F32, Bf16Format, Rounding::kNearestEven, true, false>, u16, f32>(
      t, "cvt.rn.relu.bf16.f32");
  add_lanewise<ToPair<Bf16Format, Rounding::kNearestEven, true>, u32, f32, f32>(t, "cvt.rn.relu.bf16x2.f32");
  add_lanewise<ToTf32, u32, f32>(t, "cvt.rna.tf32.f32");
  add_to_f32<F16>(t, "", "f16");
  add_to_f32<B16>(t, "", "bf16");
  add_to_f32<F32>(t, "", "f32");
  add_to_f32<F64>(t, ".rn", "f64");
  add_lanewise<ToF64<F16>, f64, u16>(t, "cvt.f64.f16");
  add_lanewise<ToF64<F32>, f64, f32>(t, "cvt.f64.f32");
  add_lanewise<ToF64<F64>, f64, f64>(t, "cvt.f64.f64");
  add_to_integral<Rounding::kNearestEven>(t, ".rni");
  add_to_integral<Rounding::kZero>(t, ".rzi");
  add_to_integral<Rounding::kDown>(t, ".rmi");
  add_to_integral<Rounding::kUp>(t, ".rpi");
}

}  // namespace tramontane::emulator
