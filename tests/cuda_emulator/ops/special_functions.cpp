// The approximations of the special function unit. The host's functions stand in for them: within the
// documented error of each, but not with the bits of a real GPU.
#include "tests/cuda_emulator/ops/float_math.h"
#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/ops/small_float.h"

namespace tramontane::emulator {
namespace {

struct Ex2 {
  f32 operator()(f32 x) const { return std::exp2(x); }
};
struct Lg2 {
  f32 operator()(f32 x) const { return std::log2(x); }
};
struct Sin {
  f32 operator()(f32 x) const { return std::sin(x); }
};
struct Cos {
  f32 operator()(f32 x) const { return std::cos(x); }
};
struct Tanh {
  f32 operator()(f32 x) const { return std::tanh(x); }
};
struct Rsqrt {
  f32 operator()(f32 x) const { return static_cast<f32>(1.0 / std::sqrt(static_cast<f64>(x))); }
};
struct Rsqrt64 {
  f64 operator()(f64 x) const { return 1.0 / std::sqrt(x); }
};
// The result has 32 significant bits of the exponent and mantissa: the low word is zero.
struct RcpUpper64 {
  f64 operator()(f64 x) const {
    return std::bit_cast<f64>(std::bit_cast<u64>(1.0 / x) & 0xffffffff00000000ull);
  }
};

template <class Op>
struct OnHalf {
  u16 operator()(u16 x) const { return f64_to_half(Op()(half_to_f32(x))); }
};
template <class Op>
struct OnBf16 {
  u16 operator()(u16 x) const { return f32_to_bf16(Op()(bf16_to_f32(x))); }
};
template <class Op>
struct OnPair {
  u32 operator()(u32 x) const {
    return static_cast<u32>(Op()(static_cast<u16>(x >> 16))) << 16 | Op()(static_cast<u16>(x));
  }
};

template <class Op>
void add_f32(FormTable& t, const std::string& op) {
  add_lanewise<Op, f32, f32>(t, op + ".approx.f32");
  add_lanewise<Modified<Op, true, false>, f32, f32>(t, op + ".approx.ftz.f32");
}

template <class Op>
void add_small(FormTable& t, const std::string& op, const std::string& bf16_flush) {
  add_lanewise<OnHalf<Op>, u16, u16>(t, op + ".approx.f16");
  add_lanewise<OnPair<OnHalf<Op>>, u32, u32>(t, op + ".approx.f16x2");
  add_lanewise<OnBf16<Op>, u16, u16>(t, op + ".approx" + bf16_flush + ".bf16");
  add_lanewise<OnPair<OnBf16<Op>>, u32, u32>(t, op + ".approx" + bf16_flush + ".bf16x2");
}

}  // namespace

void add_special_function_forms(FormTable& t) {
  add_f32<Ex2>(t, "ex2");
  add_f32<Lg2>(t, "lg2");
  add_f32<Sin>(t, "sin");
  add_f32<Cos>(t, "cos");
  add_f32<Rsqrt>(t, "rsqrt");
  add_lanewise<Tanh, f32, f32>(t, "tanh.approx.f32");
  add_small<Ex2>(t, "ex2", ".ftz");
  add_small<Tanh>(t, "tanh", "");
  add_lanewise<Rsqrt64, f64, f64>(t, "rsqrt.approx.f64");
  add_lanewise<RcpUpper64, f64, f64>(t, "rcp.approx.ftz.f64");
}

}  // namespace tramontane::emulator
