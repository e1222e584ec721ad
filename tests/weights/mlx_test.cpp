// MLX weights: what the config says about a module, and tensors that contradict each other, each refused with
// one line that names file and tensor.
#include "engine/weights/mlx.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "engine/weights/safetensors.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kRows = 3, kCols = 192;
const json kDefaults = {{"bits", 4}, {"group_size", 64}, {"mode", "affine"}};

std::string halves(int64_t count, uint16_t bits) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) bytes.append(reinterpret_cast<const char*>(&bits), sizeof bits);
  return bytes;
}

constexpr uint16_t kOne = 0x3f80, kHalf = 0x3f00;  // BF16

// Every code is all ones, scale 1, bias 1/2: every weight is 2^bits - 1/2.
RawTensors good_tensors(int64_t bits = 4, int64_t group = 64) {
  const int64_t words = kCols * bits / 32, groups = kCols / group;
  return {{"w.weight", {"U32", {kRows, words}, std::string(static_cast<size_t>(kRows * words * 4), '\xff')}},
          {"w.scales", {"BF16", {kRows, groups}, halves(kRows * groups, kOne)}},
          {"w.biases", {"BF16", {kRows, groups}, halves(kRows * groups, kHalf)}}};
}

HostMatrix load(const TempDir& dir, const RawTensors& tensors, const json& quantization) {
  TensorTable table(dir.path().string());
  const auto file = MappedFile::open(dir.write("model.safetensors", safetensors_of(tensors)));
  for (StoredTensor& tensor : read_safetensors(file).tensors) table.add(std::move(tensor));
  return MlxReader(quantization)(table, "w.weight", kRows, kCols).load();
}

std::string fault_of(const RawTensors& tensors, const json& quantization = kDefaults) {
  const TempDir dir;
  return message_of([&] { load(dir, tensors, quantization); });
}

json with_override(const json& value) {
  json quantization = kDefaults;
  quantization["w"] = value;
  return quantization;
}

TEST(Mlx, BitsAndGroupFollowFromTheShapes) {
  const TempDir dir;
  std::vector<float> row(kCols);
  for (const int64_t bits : {2, 3, 4, 5, 6, 8}) {
    for (const int64_t group : {32, 64}) {
      dequantize_row(load(dir, good_tensors(bits, group), kDefaults), 2, row);
      EXPECT_THAT(row, testing::Each(static_cast<float>(1 << bits) - 0.5f)) << bits << " bits";
    }
  }
}

// An override says what mlx_lm would do: true is the block's own setting, a key left out is mlx's default.
TEST(Mlx, OverridesAreHeldAgainstTheTensors) {
  const RawTensors dense = {{"w.weight", {"BF16", {kRows, kCols}, halves(kRows * kCols, kOne)}}};
  EXPECT_EQ(fault_of(good_tensors(8, 32), with_override({{"bits", 8}, {"group_size", 32}})), "");
  EXPECT_EQ(fault_of(good_tensors(8, 64), with_override({{"bits", 8}})), "");
  EXPECT_EQ(fault_of(good_tensors(4, 32), with_override({{"group_size", 32}})), "");
  EXPECT_EQ(fault_of(good_tensors(), with_override(true)), "");
  EXPECT_EQ(fault_of(dense, with_override(false)), "");
  EXPECT_EQ(fault_of(dense, with_override(nullptr)), "");

  const auto config_says = HasSubstr("the config says");
  EXPECT_THAT(fault_of(good_tensors(), with_override({{"bits", 8}, {"group_size", 64}})), config_says);
  EXPECT_THAT(fault_of(good_tensors(), with_override({{"bits", 4}, {"group_size", 32}})), config_says);
  EXPECT_THAT(fault_of(good_tensors(8, 32), with_override({{"bits", 8}})), config_says);
  EXPECT_THAT(fault_of(good_tensors(8), with_override(true)), config_says);
  EXPECT_THAT(fault_of(good_tensors(), with_override(false)), config_says);
  EXPECT_THAT(fault_of(dense, with_override({{"bits", 4}, {"group_size", 64}})), config_says);
  EXPECT_THAT(fault_of(dense, with_override(true)), config_says);
  EXPECT_THAT(fault_of(good_tensors(), with_override({{"mode", "nvfp4"}})), HasSubstr("w: mode \"nvfp4\""));
  EXPECT_THAT(fault_of(good_tensors(), with_override({{"bits", 7}})), HasSubstr("w: bits 7"));
}

struct Fault {
  std::string name;
  std::function<void(RawTensors&)> change;
  std::string expected;
};
[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Fault& test) {
  return out << test.name;
}

std::function<void(RawTensors&)> tensor(const std::string& name, const RawTensor& value) {
  return [=](RawTensors& tensors) { tensors[name] = value; };
}
std::function<void(RawTensors&)> without(const std::string& name) {
  return [=](RawTensors& tensors) { tensors.erase(name); };
}
RawTensor last_is(uint16_t bits, const std::string& dtype = "BF16") {
  return {dtype, {kRows, 3}, halves(kRows * 3 - 1, 0) + halves(1, bits)};
}

class MlxFault : public testing::TestWithParam<Fault> {};

TEST_P(MlxFault, IsNamed) {
  RawTensors tensors = good_tensors();
  GetParam().change(tensors);
  EXPECT_THAT(fault_of(tensors), HasSubstr("tensor w." + GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    All, MlxFault,
    testing::Values(
        Fault{"group_does_not_divide", tensor("w.scales", {"BF16", {kRows, 5}, halves(kRows * 5, 0)}),
              "weight: shape [3, 24] with scales [3, 5] does not fit a [3, 192] matrix"},
        Fault{"group_of_192", tensor("w.scales", {"BF16", {kRows, 1}, halves(kRows, 0)}),
              "weight: shape [3, 24] with scales [3, 1] does not fit"},
        Fault{"no_groups", tensor("w.scales", {"BF16", {kRows, 0}, ""}), "weight: is not a quantised matrix"},
        Fault{"words_between_bits", tensor("w.weight", {"U32", {kRows, 23}, std::string(kRows * 23 * 4, 'x')}),
              "weight: shape [3, 23] with scales [3, 3] does not fit"},
        Fault{"codes_past_the_end", tensor("w.weight", {"U32", {kRows, 192}, std::string(kRows * 192 * 4, 'x')}),
              "weight: shape [3, 192] with scales [3, 3] does not fit"},
        Fault{"weight_flat", tensor("w.weight", {"U32", {72}, std::string(288, 'x')}),
              "weight: is not a quantised matrix: shape [72]"},
        Fault{"weight_rows", tensor("w.weight", {"U32", {2, 24}, std::string(192, 'x')}),
              "weight: shape is [2, 24], expected [3, 24]"},
        Fault{"weight_signed", tensor("w.weight", {"I32", {kRows, 24}, std::string(288, 'x')}),
              "weight: dtype is I32, expected U32"},
        Fault{"scales_rows", tensor("w.scales", {"BF16", {2, 3}, halves(6, 0)}),
              "scales: shape is [2, 3], expected [3, 3]"},
        Fault{"biases_short", tensor("w.biases", {"BF16", {kRows, 2}, halves(6, 0)}),
              "biases: shape is [3, 2], expected [3, 3]"},
        Fault{"biases_of_another_dtype", tensor("w.biases", {"F16", {kRows, 3}, halves(9, 0)}),
              "biases: dtype is F16, expected the scales' BF16"},
        Fault{"scales_of_bytes", tensor("w.scales", {"U8", {kRows, 3}, std::string(9, 'x')}),
              "scales: dtype U8 is not supported (mxfp4"},
        Fault{"no_scales", without("w.scales"), "scales is missing"},
        Fault{"no_biases", without("w.biases"), "scales: has no biases beside it"},
        Fault{"scale_nan", tensor("w.scales", last_is(0x7fc0)), "weight: the scale of row 2, group 2 is not finite"},
        Fault{"scale_infinite", tensor("w.scales", last_is(0xff80)),
              "weight: the scale of row 2, group 2 is not finite"},
        Fault{"bias_nan", tensor("w.biases", last_is(0xffc0)), "weight: the bias of row 2, group 2 is not finite"},
        Fault{"scale_nan_in_f16",
              [](RawTensors& tensors) {
                tensors["w.scales"] = last_is(0x7e00, "F16");
                tensors["w.biases"] = last_is(0, "F16");
              },
              "weight: the scale of row 2, group 2 is not finite"}),
    [](const auto& test) { return test.param.name; });

TEST(Mlx, TheLargestFiniteScalesAreRead) {
  RawTensors tensors = good_tensors();
  tensors["w.scales"] = last_is(0x7f7f);
  EXPECT_EQ(fault_of(tensors), "");
  tensors["w.scales"] =
      last_is(0x7bff, "F16");  // as BF16's bits it would be finite too; 0x7c00 would not as F16
  tensors["w.biases"] = last_is(0, "F16");
  EXPECT_EQ(fault_of(tensors), "");
}

}  // namespace
}  // namespace tramontane
