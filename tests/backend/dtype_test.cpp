// Conversions of engine/backend/dtype.h, each against arithmetic that is written another way.
#include "engine/backend/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tramontane {
namespace {

TEST(Dtype, F16IsExactForAllValues) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = f16_to_float(static_cast<uint16_t>(half));
    const int exponent = static_cast<int>(half >> 10 & 31), mantissa = static_cast<int>(half & 1023);
    if (exponent == 31) {
      EXPECT_EQ(std::isnan(value), mantissa != 0) << half;
      EXPECT_EQ(std::isinf(value), mantissa == 0) << half;
    } else {
      const double magnitude =
          exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
      ASSERT_EQ(static_cast<double>(std::fabs(value)), magnitude) << half;
    }
    EXPECT_EQ(std::signbit(value), half >= 32768) << half;
  }
}

TEST(Dtype, Bf16RoundTripsAllValues) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_float(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(value)))) << bits;
    } else {
      ASSERT_EQ(float_to_bf16(value), bits);
    }
  }
}

// Between two neighbours: the nearer one; in the middle: the even one.
TEST(Dtype, Bf16RoundsToNearestEven) {
  for (uint32_t bits = 1; bits < 0x7f7f; bits += 7) {
    const float low = bf16_to_float(static_cast<uint16_t>(bits)),
                high = bf16_to_float(static_cast<uint16_t>(bits + 1));
    const float middle = std::bit_cast<float>(bits << 16 | 0x8000u);
    EXPECT_EQ(float_to_bf16(std::nextafter(middle, low)), bits);
    EXPECT_EQ(float_to_bf16(std::nextafter(middle, high)), bits + 1);
    EXPECT_EQ(float_to_bf16(middle), bits % 2 == 0 ? bits : bits + 1);
    EXPECT_EQ(float_to_bf16(-middle), 0x8000u | (bits % 2 == 0 ? bits : bits + 1));
  }
}

TEST(Dtype, Bf16Extremes) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);  // rounds up to infinity
  EXPECT_EQ(float_to_bf16(infinity), 0x7f80);
  EXPECT_EQ(float_to_bf16(-infinity), 0xff80);
  // A NaN whose payload lies only in the dropped half must not become infinity.
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0xff800001u)) & 0x8000u, 0x8000u);
  EXPECT_EQ(float_to_bf16(-0.0f), 0x8000);
}

TEST(Dtype, SizesAndNames) {
  EXPECT_EQ(size_of(DType::f32), 4u);
  EXPECT_EQ(size_of(DType::bf16), 2u);
  EXPECT_EQ(size_of(DType::u8), 1u);
  EXPECT_EQ(name_of(DType::f16), "F16");
}

}  // namespace
}  // namespace tramontane
