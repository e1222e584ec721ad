// Single and double precision operations as PTX defines them, shared by the nearest-rounding and the directed
// handlers.
#pragma once

#include <bit>
#include <cmath>
#include <limits>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

// .ftz: subnormal numbers count as zero of their sign.
inline f32 flush(f32 x) {
  return std::fabs(x) < std::numeric_limits<f32>::min() ? std::copysign(0.0f, x) : x;
}
// .sat: clamped to [0, 1]; NaN becomes 0.
inline f32 saturate(f32 x) {
  return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}
inline f64 saturate(f64 x) {
  return x > 0 ? (x < 1 ? x : 1.0) : 0.0;
}

struct FloatAdd {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct FloatSub {
  template <class T>
  T operator()(T a, T b) const {
    return a - b;
  }
};
struct FloatMul {
  template <class T>
  T operator()(T a, T b) const {
    return a * b;
  }
};
struct FloatDiv {
  template <class T>
  T operator()(T a, T b) const {
    return a / b;
  }
};
struct FloatRcp {
  template <class T>
  T operator()(T a) const {
    return T{1} / a;
  }
};
struct FloatSqrt {
  template <class T>
  T operator()(T a) const {
    return std::sqrt(a);
  }
};
struct FloatFma {
  f32 operator()(f32 a, f32 b, f32 c) const { return __builtin_fmaf(a, b, c); }
  f64 operator()(f64 a, f64 b, f64 c) const { return __builtin_fma(a, b, c); }
};

// An f32 operation with .ftz and .sat.
template <class Op, bool kFlush, bool kSaturate>
struct Modified {
  template <class... S>
  f32 operator()(S... s) const {
    const f32 r = kFlush ? flush(Op()(flush(s)...)) : Op()(s...);
    return kSaturate ? saturate(r) : r;
  }
};

}  // namespace tramontane::emulator
