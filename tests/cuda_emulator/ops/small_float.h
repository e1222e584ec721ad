// Conversions between binary64/binary32 and the small formats: half, bfloat16, TF32. Exact, in integer
// arithmetic.
#pragma once

#include <bit>
#include <cmath>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

enum class Rounding { kNearestEven, kZero, kDown, kUp };

// An IEEE-like format of at most 32 bits; its NaN is what PTX returns.
struct HalfFormat {
  static constexpr int kExponentBits = 5, kMantissaBits = 10;
  static constexpr u32 kNan = 0x7fff;
};
struct Bf16Format {
  static constexpr int kExponentBits = 8, kMantissaBits = 7;
  static constexpr u32 kNan = 0x7fff;
};
struct Tf32Format {
  static constexpr int kExponentBits = 8, kMantissaBits = 10;
  static constexpr u32 kNan = 0x3ffff;
};

// Whether a magnitude whose discarded part is `rest` (of `half` * 2) is rounded away from zero.
inline bool rounds_up(u64 kept, u64 rest, u64 half, bool negative, Rounding rounding) {
  switch (rounding) {
    case Rounding::kNearestEven:
      return rest > half || (rest == half && (kept & 1));
    case Rounding::kZero:
      return false;
    case Rounding::kDown:
      return negative && rest != 0;
    case Rounding::kUp:
      return !negative && rest != 0;
  }
  return false;
}

// The format's bits nearest to `value` by `rounding`. Overflow gives infinity, or the largest finite number
// where the rounding goes towards zero.
template <class Format>
u32 encode(f64 value, Rounding rounding = Rounding::kNearestEven) {
  constexpr int kBias = (1 << (Format::kExponentBits - 1)) - 1;
  constexpr int kMantissa = Format::kMantissaBits;
  constexpr u32 kInfinity = ((1u << Format::kExponentBits) - 1) << kMantissa;
  if (value != value) return Format::kNan;
  const u64 bits = std::bit_cast<u64>(value);
  const bool negative = bits >> 63;
  const u32 sign = static_cast<u32>(negative) << (Format::kExponentBits + kMantissa);
  const u64 magnitude = bits & ~(1ull << 63);
  if (magnitude == 0) return sign;
  if (magnitude >> 52 == 0x7ff) return sign | kInfinity;
  // Doubles below 2^-1022 are far below every format here: only the direction of rounding can make them
  // matter.
  int exponent = static_cast<int>(magnitude >> 52) - 1023;
  const u64 significand = (magnitude & ((1ull << 52) - 1)) | 1ull << 52;
  int shift = 52 - kMantissa;
  if (exponent < 1 - kBias) shift += 1 - kBias - exponent;
  const bool vanishes = shift > 54;
  const u64 kept = vanishes ? 0 : significand >> shift;
  const u64 rest = vanishes ? 1 : significand & ((1ull << shift) - 1);
  const u64 half = vanishes ? 2 : 1ull << (shift - 1);
  const u64 rounded = kept + rounds_up(kept, rest, half, negative, rounding);
  const u32 biased =
      exponent < 1 - kBias ? 0 : static_cast<u32>(exponent + kBias - 1);  // the hidden bit adds one
  const u64 result = (static_cast<u64>(biased) << kMantissa) + rounded;
  if (result >= kInfinity) {
    const bool to_infinity =
        rounding == Rounding::kNearestEven || rounding == (negative ? Rounding::kDown : Rounding::kUp);
    return sign | (to_infinity ? kInfinity : kInfinity - 1);
  }
  return sign | static_cast<u32>(result);
}

inline f32 bf16_to_f32(u16 bits) {
  return std::bit_cast<f32>(static_cast<u32>(bits) << 16);
}

inline u16 f32_to_bf16(f32 value) {
  const u32 bits = std::bit_cast<u32>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline f32 half_to_f32(u16 bits) {
  const u32 sign = static_cast<u32>(bits & 0x8000) << 16;
  const u32 magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return std::bit_cast<f32>(sign | 0x7f800000 | magnitude << 13);
  // 2^112 moves the exponent from half's bias to single's; subnormals come out right as the product is exact.
  return std::bit_cast<f32>(std::bit_cast<u32>(std::bit_cast<f32>(magnitude << 13) * 0x1p112f) | sign);
}

inline u16 f64_to_half(f64 value) {
  return static_cast<u16>(encode<HalfFormat>(value));
}

// a + b in double, rounded to odd: rounding that once more to a format of at most 50 bits is as rounding the
// exact sum.
inline f64 add_to_odd(f64 a, f64 b) {
  const f64 sum = a + b;
  if (!std::isfinite(sum)) return sum;
  const f64 b_part = sum - a;
  const f64 error = (a - (sum - b_part)) + (b - b_part);
  u64 bits = std::bit_cast<u64>(sum);
  if (error == 0 || (bits & 1)) return sum;
  bits += (error > 0) == (sum > 0) ? 1 : -1ull;
  return std::bit_cast<f64>(bits);
}

}  // namespace tramontane::emulator
