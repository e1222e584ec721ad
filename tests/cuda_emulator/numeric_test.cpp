// Conversions over all 2^16 inputs, or as many patterns around every tie, against references written from the
// formats' definitions; bit operations and directed roundings against slow and plain ones.
#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <functional>

#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;

std::vector<uint32_t> apply(Unary op, const std::vector<uint32_t>& x) {
  DeviceArray<uint32_t> dx(x), dy(x.size());
  unary(op, dx.get(), dy.get(), static_cast<int>(x.size()));
  return dy.values();
}

// The number that bits of a binary format mean.
double meaning(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits >> (exponent_bits + mantissa_bits) & 1 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
  const double fraction = std::ldexp(static_cast<double>(mantissa), -mantissa_bits);
  return sign * (exponent ? std::ldexp(1 + fraction, exponent - bias) : std::ldexp(fraction, 1 - bias));
}
double half(uint32_t bits) {
  return meaning(bits & 0xffff, 5, 10);
}
double bf16(uint32_t bits) {
  return meaning(bits & 0xffff, 8, 7);
}
double single(uint32_t bits) {
  return std::bit_cast<float>(bits);
}

bool same(double a, double b) {
  return (a != a && b != b) || (a == b && std::signbit(a) == std::signbit(b));
}

// x rounded to a multiple of the format's unit in the last place, then to infinity if it is too large.
double rounded(double x, int mantissa_bits, int smallest_exponent, double largest, bool to_zero) {
  if (x != x || std::isinf(x) || x == 0) return x;
  const int exponent = std::max(std::ilogb(x), smallest_exponent);
  const double unit = std::ldexp(1.0, exponent - mantissa_bits);
  const double r = (to_zero ? std::trunc(x / unit) : std::nearbyint(x / unit)) * unit;
  if (std::fabs(r) <= largest) return std::copysign(r, x);
  return std::copysign(to_zero ? largest : INFINITY, x);
}
double to_half(double x, bool to_zero) {
  return rounded(x, 10, -14, 65504, to_zero);
}
double to_bf16(double x, bool to_zero) {
  return rounded(x, 7, -126, std::ldexp(255.0, 120), to_zero);
}

std::vector<uint32_t> all_16_bits() {
  std::vector<uint32_t> x(1 << 16);
  for (uint32_t i = 0; i < x.size(); ++i) x[i] = i;
  return x;
}

// Singles with every upper half, and lower bits on, just below and just above the ties of half and bfloat16;
// random ones.
std::vector<uint32_t> singles() {
  std::vector<uint32_t> x = random_bits(1 << 16, 20);
  for (uint32_t high = 0; high < 1 << 16; ++high) {
    const uint32_t lows[] = {0x0000, 0x1000, 0x0fff, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (const uint32_t low : {lows[high % 8], lows[(high / 8 + 3) % 8], 0x8000u})
      x.push_back(high << 16 | low);
  }
  return x;
}

void expect_all(Unary op, const std::vector<uint32_t>& x,
                const std::function<bool(uint32_t, uint32_t)>& right) {
  const auto y = apply(op, x);
  int wrong = 0;
  for (std::size_t i = 0; i < x.size() && wrong < 5; ++i)
    if (!right(x[i], y[i])) ADD_FAILURE() << std::hex << "of " << x[i] << " comes " << y[i], ++wrong;
}

TEST(Numeric, SmallFormatsToSingle) {
  expect_all(Unary::kBf16ToF32, all_16_bits(),
             [](uint32_t x, uint32_t y) { return same(bf16(x), single(y)); });
  expect_all(Unary::kHalfToF32, all_16_bits(),
             [](uint32_t x, uint32_t y) { return same(half(x), single(y)); });
}

TEST(Numeric, SingleToSmallFormats) {
  const auto x = singles();
  expect_all(Unary::kF32ToBf16, x,
             [](uint32_t a, uint32_t b) { return same(to_bf16(single(a), false), bf16(b)); });
  expect_all(Unary::kF32ToBf16Zero, x,
             [](uint32_t a, uint32_t b) { return same(to_bf16(single(a), true), bf16(b)); });
  expect_all(Unary::kF32ToHalf, x,
             [](uint32_t a, uint32_t b) { return same(to_half(single(a), false), half(b)); });
  expect_all(Unary::kF32ToHalfZero, x,
             [](uint32_t a, uint32_t b) { return same(to_half(single(a), true), half(b)); });
}

template <class T>
bool is_clamped(double integral, uint32_t y) {
  if (integral != integral) return y == 0;
  const double least = std::numeric_limits<T>::min(), most = std::numeric_limits<T>::max();
  return static_cast<double>(static_cast<T>(y)) == std::min(std::max(integral, least), most);
}

TEST(Numeric, SingleToIntegers) {
  auto x = singles();
  for (int i = -40; i < 600; ++i) x.push_back(std::bit_cast<uint32_t>(static_cast<float>(i) / 2));
  expect_all(Unary::kF32ToS32Nearest, x,
             [](uint32_t a, uint32_t b) { return is_clamped<int32_t>(std::nearbyint(single(a)), b); });
  expect_all(Unary::kF32ToS32Zero, x,
             [](uint32_t a, uint32_t b) { return is_clamped<int32_t>(std::trunc(single(a)), b); });
  expect_all(Unary::kF32ToS32Down, x,
             [](uint32_t a, uint32_t b) { return is_clamped<int32_t>(std::floor(single(a)), b); });
  expect_all(Unary::kF32ToS32Up, x,
             [](uint32_t a, uint32_t b) { return is_clamped<int32_t>(std::ceil(single(a)), b); });
  expect_all(Unary::kF32ToU32Zero, x,
             [](uint32_t a, uint32_t b) { return is_clamped<uint32_t>(std::trunc(single(a)), b); });
  expect_all(Unary::kF32ToU8Saturated, x, [](uint32_t a, uint32_t b) {
    return b < 256 && is_clamped<uint8_t>(std::nearbyint(single(a)), b);
  });
  expect_all(Unary::kRoundF32, x,
             [](uint32_t a, uint32_t b) { return same(std::nearbyint(single(a)), single(b)); });
  expect_all(Unary::kFloorF32, x,
             [](uint32_t a, uint32_t b) { return same(std::floor(single(a)), single(b)); });
  expect_all(Unary::kTruncateF32, x,
             [](uint32_t a, uint32_t b) { return same(std::trunc(single(a)), single(b)); });
}

TEST(Numeric, IntegersToFloats) {
  auto x = random_bits(1 << 16, 1);
  for (uint32_t i = 0; i < 64; ++i) x.push_back(0x01000000 + i), x.push_back(-i), x.push_back(0x7fffffc0 + i);
  expect_all(Unary::kS32ToF32, x, [](uint32_t a, uint32_t b) {
    return same(rounded(static_cast<int32_t>(a), 23, -126, 1e38, false), single(b));
  });
  expect_all(Unary::kU32ToF32, x,
             [](uint32_t a, uint32_t b) { return same(rounded(a, 23, -126, 1e38, false), single(b)); });
  expect_all(Unary::kS32ToF32Down, x, [](uint32_t a, uint32_t b) {
    const double exact = static_cast<int32_t>(a), y = single(b);
    return y <= exact && std::nextafterf(static_cast<float>(y), INFINITY) > exact;
  });
  expect_all(Unary::kU32ToF32Up, x, [](uint32_t a, uint32_t b) {
    const double exact = a, y = single(b);
    return y >= exact && (y == 0 || std::nextafterf(static_cast<float>(y), -INFINITY) < exact);
  });
  expect_all(Unary::kHalfToS16, all_16_bits(),
             [](uint32_t a, uint32_t b) { return is_clamped<int16_t>(std::nearbyint(half(a)), b); });
  expect_all(Unary::kS16ToHalf, all_16_bits(),
             [](uint32_t a, uint32_t b) { return same(to_half(static_cast<int16_t>(a), false), half(b)); });
  expect_all(Unary::kS8OfU32, x,
             [](uint32_t a, uint32_t b) { return static_cast<int32_t>(b) == static_cast<int8_t>(a); });
  expect_all(Unary::kU16OfU32, x, [](uint32_t a, uint32_t b) { return b == a % 65536; });
  expect_all(Unary::kU32OfU16, x, [](uint32_t a, uint32_t b) { return b == a % 65536; });
}

TEST(Numeric, SaturationToTheUnitInterval) {
  expect_all(Unary::kSaturateF32, singles(), [](uint32_t a, uint32_t b) {
    const double x = single(a);
    return single(b) == (x > 0 ? std::min(x, 1.0) : 0);  // 0 for NaN too
  });
}

void expect_all(Wide op, const std::vector<uint64_t>& x,
                const std::function<bool(uint64_t, uint64_t)>& right) {
  DeviceArray<uint64_t> dx(x), dy(x.size());
  wide(op, dx.get(), dy.get(), static_cast<int>(x.size()));
  const auto y = dy.values();
  int wrong = 0;
  for (std::size_t i = 0; i < x.size() && wrong < 5; ++i)
    if (!right(x[i], y[i])) ADD_FAILURE() << std::hex << "of " << x[i] << " comes " << y[i], ++wrong;
}

std::vector<uint64_t> widened(const std::vector<uint32_t>& x) {
  const auto high = random_bits(x.size(), 21);  // must not matter
  std::vector<uint64_t> result(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) result[i] = uint64_t{high[i]} << 32 | x[i];
  return result;
}

// Random words of every length, and those around each power of two.
std::vector<uint64_t> words() {
  std::vector<uint64_t> x;
  std::mt19937_64 random(22);
  for (int i = 0; i < 1 << 16; ++i) x.push_back(random() >> i % 64);
  for (int i = 0; i < 64; ++i)
    for (int k = -3; k <= 3; ++k) x.push_back((uint64_t{1} << i) + static_cast<uint64_t>(k));
  // Ties of 24 and 53 bits, and their neighbours.
  for (const int bits : {24, 53})
    for (uint64_t kept = 0; kept < 64; ++kept)
      for (int64_t k = -1; k <= 1; ++k)
        x.push_back(((kept * 2 + 1) << (63 - bits)) + (uint64_t{1} << 63) + static_cast<uint64_t>(k));
  return x;
}

// Doubles with random bits, and numbers with fractions of every size up to beyond 64 bits.
std::vector<uint64_t> doubles() {
  std::vector<uint64_t> x;
  std::mt19937_64 random(23);
  for (int i = 0; i < 1 << 16; ++i) {
    x.push_back(random());
    x.push_back((random() & 0x800fffffffffffff) | (1020 + random() % 72) << 52);
  }
  for (const double v : {0.0, 0.5, 1.5, 0x1p31, 0x1p32, 0x1p53, 0x1p63, 0x1p64, 5e-324})
    for (const double u : {v, std::nextafter(v, 0.0), std::nextafter(v, INFINITY), v - 0.5, v - 1})
      for (const double w : {u, -u}) x.push_back(std::bit_cast<uint64_t>(w));
  for (const uint64_t special :
       {0x7ff0000000000000, 0x7ff0000000000001, 0x7ff8000000000000, 0x7fffffffffffffff})
    x.push_back(special), x.push_back(special | uint64_t{1} << 63);
  return x;
}

// x rounded to so many binary digits, in integer arithmetic.
double rounded_integer(uint64_t x, int digits, bool to_zero) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(x)) - digits);
  const uint64_t kept = x >> shift, rest = x - (kept << shift), half = shift ? uint64_t{1} << (shift - 1) : 1;
  const bool up = !to_zero && (rest > half || (rest == half && kept % 2 == 1));
  return std::ldexp(static_cast<double>(kept + up), shift);
}

TEST(Numeric, ConversionsToAndFrom64Bits) {
  const auto as_double = [](uint64_t bits) { return std::bit_cast<double>(bits); };
  const auto low = [](uint64_t bits) { return static_cast<uint32_t>(bits); };
  expect_all(Wide::kF32ToF64, widened(singles()),
             [&](uint64_t x, uint64_t y) { return same(meaning(low(x), 8, 23), as_double(y)); });
  expect_all(Wide::kU32ToF64, words(),
             [&](uint64_t x, uint64_t y) { return as_double(y) == rounded_integer(low(x), 53, false); });
  expect_all(Wide::kU64ToF64, words(),
             [&](uint64_t x, uint64_t y) { return as_double(y) == rounded_integer(x, 53, false); });
  expect_all(Wide::kU64ToF32Zero, words(), [&](uint64_t x, uint64_t y) {
    return y >> 32 == 0 && single(low(y)) == rounded_integer(x, 24, true);
  });
  expect_all(Wide::kU32ToU64, words(), [&](uint64_t x, uint64_t y) { return y == (x & 0xffffffff); });
  expect_all(Wide::kU64ToU32, words(), [&](uint64_t x, uint64_t y) { return y == (x & 0xffffffff); });
  expect_all(Wide::kS32ToS64, words(), [&](uint64_t x, uint64_t y) {
    return y == ((x & 0xffffffff) | (x & 0x80000000 ? 0xffffffff00000000 : 0));
  });
}

// The bits of a truncated number in T, which clamps it. NaN gives the top bit alone: here one side has 64
// bits.
template <class T>
uint64_t clamped(double x) {
  using Bits = std::make_unsigned_t<T>;
  constexpr int kBits = 8 * sizeof(T);
  if (x != x) return uint64_t{1} << (kBits - 1);
  const double end = std::ldexp(1.0, std::is_signed_v<T> ? kBits - 1 : kBits);
  if (x >= end) return static_cast<Bits>(std::numeric_limits<T>::max());
  if (x <= (std::is_signed_v<T> ? -end : 0)) return static_cast<Bits>(std::numeric_limits<T>::min());
  return static_cast<Bits>(static_cast<T>(x));
}

template <class T>
void expect_clamped(Wide op, const std::vector<uint64_t>& x, double (*value)(uint64_t)) {
  expect_all(op, x, [=](uint64_t a, uint64_t b) { return b == clamped<T>(value(a)); });
}

TEST(Numeric, FloatsToIntegersWhereOneSideHas64Bits) {
  const auto of_double = [](uint64_t bits) { return std::bit_cast<double>(bits); };
  const auto of_single = [](uint64_t bits) { return single(static_cast<uint32_t>(bits)); };
  const auto of_half = [](uint64_t bits) { return half(static_cast<uint32_t>(bits)); };
  expect_clamped<int64_t>(Wide::kF64ToS64, doubles(), of_double);
  expect_clamped<uint64_t>(Wide::kF64ToU64, doubles(), of_double);
  expect_clamped<int32_t>(Wide::kF64ToS32, doubles(), of_double);
  expect_clamped<uint32_t>(Wide::kF64ToU32, doubles(), of_double);
  expect_clamped<int16_t>(Wide::kF64ToS16, doubles(), of_double);
  expect_clamped<uint16_t>(Wide::kF64ToU16, doubles(), of_double);
  expect_clamped<int64_t>(Wide::kF32ToS64, widened(singles()), of_single);
  expect_clamped<uint64_t>(Wide::kF32ToU64, widened(singles()), of_single);
  expect_clamped<int64_t>(Wide::kHalfToS64, widened(all_16_bits()), of_half);
  expect_clamped<uint64_t>(Wide::kHalfToU64, widened(all_16_bits()), of_half);
}

// Within the error that the CUDA guide gives for each approximation.
TEST(Numeric, ApproximationsAreWithinTheirBounds) {
  std::vector<uint32_t> x;
  for (int i = -2000; i <= 2000; ++i) x.push_back(std::bit_cast<uint32_t>(static_cast<float>(i) / 300));
  const auto check = [&](Unary op, double (*f)(double), double relative, double absolute) {
    expect_all(op, x, [&](uint32_t a, uint32_t b) {
      const double exact = f(single(a)), y = single(b);
      return same(exact, y) || std::fabs(y - exact) <= relative * std::fabs(exact) + absolute;
    });
  };
  check(
      Unary::kEx2, [](double v) { return std::exp2(v); }, 1e-6, 0);
  check(
      Unary::kLg2, [](double v) { return std::log2(v); }, 1e-6, 1e-6);
  check(
      Unary::kRsqrt, [](double v) { return 1 / std::sqrt(v); }, 1e-6, 0);
  check(
      Unary::kRcp, [](double v) { return 1 / v; }, 1e-6, 0);
  check(
      Unary::kSqrt, [](double v) { return std::sqrt(v); }, 1e-6, 0);
  check(
      Unary::kSin, [](double v) { return std::sin(v); }, 0, 1e-6);
  check(
      Unary::kCos, [](double v) { return std::cos(v); }, 0, 1e-6);
  check(
      Unary::kTanh, [](double v) { return std::tanh(v); }, 6e-4, 0);
}

TEST(Numeric, SubnormalNumbersAreFlushed) {
  expect_all(Unary::kFtzAdd, singles(), [](uint32_t a, uint32_t b) {
    const double v = single(a);
    if (v != v) return single(b) != single(b);
    return single(b) == (std::fabs(v) < std::ldexp(1.0, -126) ? 0 : v);
  });
}

TEST(Numeric, CountingBits) {
  auto x = random_bits(5000, 2);
  for (int i = 0; i < 32; ++i) x.push_back(1u << i), x.push_back((1u << i) - 1);
  expect_all(Unary::kPopc, x, [](uint32_t a, uint32_t b) {
    uint32_t count = 0;
    for (; a; a /= 2) count += a % 2;
    return b == count;
  });
  expect_all(Unary::kClz, x,
             [](uint32_t a, uint32_t b) { return b <= 32 && (b == 32 ? a == 0 : a >> (31 - b) == 1); });
  expect_all(Unary::kBfind, x, [](uint32_t a, uint32_t b) { return a == 0 ? b == ~0u : a >> b == 1; });
  expect_all(Unary::kBrev, x, [](uint32_t a, uint32_t b) {
    for (int i = 0; i < 32; ++i)
      if ((a >> i & 1) != (b >> (31 - i) & 1)) return false;
    return true;
  });
}

struct Inputs {
  std::vector<uint32_t> a, b, c;
};

void expect_all(Ternary op, const Inputs& in,
                const std::function<uint32_t(uint32_t, uint32_t, uint32_t)>& reference) {
  DeviceArray<uint32_t> a(in.a), b(in.b), c(in.c), d(in.a.size());
  ternary(op, a.get(), b.get(), c.get(), d.get(), static_cast<int>(in.a.size()));
  const auto result = d.values();
  int wrong = 0;
  for (std::size_t i = 0; i < result.size() && wrong < 5; ++i)
    if (result[i] != reference(in.a[i], in.b[i], in.c[i]))
      ADD_FAILURE() << std::hex << "of " << in.a[i] << " " << in.b[i] << " " << in.c[i] << " comes "
                    << result[i] << ", not " << reference(in.a[i], in.b[i], in.c[i]),
          ++wrong;
}

uint32_t bit(uint32_t x, uint32_t i) {
  return i < 32 ? x >> i & 1 : 0;
}

TEST(Numeric, BitFields) {
  Inputs in{random_bits(20'000, 3), random_bits(20'000, 4), random_bits(20'000, 5)};
  expect_all(Ternary::kLop3, in, [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r = 0;
    for (uint32_t i = 0; i < 32; ++i) r |= bit(0x6A, bit(a, i) * 4 + bit(b, i) * 2 + bit(c, i)) << i;
    return r;
  });
  expect_all(Ternary::kPrmt, in, [](uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t words[2] = {a, b};
    uint32_t r = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      const uint32_t select = c >> 4 * i & 15, byte = words[(select & 7) / 4] >> 8 * (select & 3) & 255;
      r |= (select & 8 ? (byte >> 7) * 255 : byte) << 8 * i;
    }
    return r;
  });
  expect_all(Ternary::kFunnelLeft, in, [](uint32_t a, uint32_t b, uint32_t c) {
    for (uint32_t i = 0; i < c % 32; ++i) b = b << 1 | a >> 31, a <<= 1;
    return b;
  });
  expect_all(Ternary::kMulHi, in, [](uint32_t a, uint32_t b, uint32_t c) {
    return static_cast<uint32_t>((uint64_t{a} * b) >> 32) + c;
  });
  expect_all(Ternary::kMad, in, [](uint32_t a, uint32_t b, uint32_t c) { return a * b + c; });
  expect_all(Ternary::kDp4a, in, [](uint32_t a, uint32_t b, uint32_t c) {
    for (int i = 0; i < 4; ++i)
      c += static_cast<uint32_t>(static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i));
    return c;
  });
  for (auto& v : in.b) v %= 40;
  for (auto& v : in.c) v %= 40;
  expect_all(Ternary::kBfe, in, [](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t r = 0;
    for (uint32_t i = 0; i < std::min(c, 32u); ++i) r |= bit(a, b + i) << i;
    return r;
  });
  expect_all(Ternary::kBfeSigned, in, [](uint32_t a, uint32_t b, uint32_t c) {
    if (c == 0) return 0u;
    const uint32_t sign = bit(a, std::min(b + c - 1, 31u));
    uint32_t r = 0;
    for (uint32_t i = 0; i < 32; ++i) r |= (i < c && b + i < 32 ? bit(a, b + i) : sign) << i;
    return r;
  });
  expect_all(Ternary::kFunnelRight, in, [](uint32_t a, uint32_t b, uint32_t c) {
    for (uint32_t i = 0; i < std::min(c, 32u); ++i) a = a >> 1 | b << 31, b >>= 1;
    return a;
  });
  in.b = random_bits(20'000, 6);
  expect_all(Ternary::kBfi, in, [](uint32_t a, uint32_t b, uint32_t c) {
    for (uint32_t i = 0; i < 5; ++i)
      if (c + i < 32) b = (b & ~(1u << (c + i))) | bit(a, i) << (c + i);
    return b;
  });
}

float fma_rounded(uint32_t a, uint32_t b, uint32_t c, int mode) {
  std::fesetround(mode);
  volatile float x = std::bit_cast<float>(a), y = std::bit_cast<float>(b), z = std::bit_cast<float>(c);
  volatile float r = std::fmaf(x, y, z);
  std::fesetround(FE_TONEAREST);
  return r;
}

TEST(Numeric, DirectedRounding) {
  Inputs in;
  for (auto* list : {&in.a, &in.b, &in.c})
    for (const float v : random_floats(5000, static_cast<unsigned>(11 + list->size()), 3.0f))
      list->push_back(std::bit_cast<uint32_t>(v / 3));
  expect_all(Ternary::kFmaDown, in, [](uint32_t a, uint32_t b, uint32_t c) {
    return std::bit_cast<uint32_t>(fma_rounded(a, b, c, FE_DOWNWARD));
  });
  expect_all(Ternary::kFmaUp, in, [](uint32_t a, uint32_t b, uint32_t c) {
    return std::bit_cast<uint32_t>(fma_rounded(a, b, c, FE_UPWARD));
  });
}

// The first operand is the upper half.
TEST(Numeric, PairsOfBfloat16) {
  Inputs in{singles(), singles(), {}};
  std::mt19937 random(24);
  std::shuffle(in.b.begin(), in.b.end(), random);
  in.c.resize(in.a.size());
  DeviceArray<uint32_t> a(in.a), b(in.b), c(in.c), d(in.a.size());
  ternary(Ternary::kPackBf16, a.get(), b.get(), c.get(), d.get(), static_cast<int>(in.a.size()));
  const auto result = d.values();
  for (std::size_t i = 0; i < result.size(); ++i) {
    ASSERT_TRUE(same(to_bf16(single(in.a[i]), false), bf16(result[i] >> 16))) << std::hex << in.a[i];
    ASSERT_TRUE(same(to_bf16(single(in.b[i]), false), bf16(result[i]))) << std::hex << in.b[i];
  }
}

// Numbers of like size, so that the exact sum fits a double and one rounding remains.
TEST(Numeric, FusedMultiplyAddOfPairs) {
  Inputs in{random_bits(20'000, 7), random_bits(20'000, 8), random_bits(20'000, 9)};
  const auto check = [&](Ternary op, uint32_t keep, uint32_t set, double (*decode)(uint32_t),
                         double (*round)(double, bool)) {
    Inputs limited = in;
    for (auto* list : {&limited.a, &limited.b, &limited.c})
      for (auto& v : *list) v = (v & keep) | set;
    DeviceArray<uint32_t> a(limited.a), b(limited.b), c(limited.c), d(in.a.size());
    ternary(op, a.get(), b.get(), c.get(), d.get(), static_cast<int>(in.a.size()));
    const auto result = d.values();
    for (std::size_t i = 0; i < result.size(); ++i)
      for (int shift : {0, 16}) {
        const double exact =
            decode(limited.a[i] >> shift) * decode(limited.b[i] >> shift) + decode(limited.c[i] >> shift);
        ASSERT_EQ(decode(result[i] >> shift), round(exact, false)) << i;
      }
  };
  check(Ternary::kHalfFma, 0x87ff87ff, 0x38003800, half, to_half);  // exponents -1 and 0
  check(Ternary::kBf16Fma, 0x83ff83ff, 0x3c003c00, bf16, to_bf16);  // exponents -7 ... 0
}

}  // namespace
}  // namespace tramontane::emulator
