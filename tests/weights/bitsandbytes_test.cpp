// A bitsandbytes weight whose tensors and quant_state contradict each other: each contradiction is refused
// with one line that names file and tensor.
#include "engine/weights/bitsandbytes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <ostream>

#include "engine/weights/quantize_rules.h"
#include "engine/weights/safetensors.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

constexpr int64_t kRows = 4, kCols = 128;  // 8 blocks of 64
const std::string kWeight = "w.weight", kState = kWeight + ".quant_state.bitsandbytes__nf4";

RawTensor text_tensor(const std::string& text) {
  return {"U8", {static_cast<int64_t>(text.size())}, text};
}

json good_state(bool nested) {
  json state = {{"quant_type", "nf4"}, {"blocksize", 64}, {"dtype", "bfloat16"}, {"shape", {kRows, kCols}}};
  if (nested) state.update({{"nested_blocksize", 256}, {"nested_dtype", "float32"}, {"nested_offset", 0.25}});
  return state;
}

RawTensors good_tensors(bool nested) {
  const auto table = bitsandbytes_table(FourBit::nf4);
  RawTensors tensors = {{kWeight, {"U8", {kRows * kCols / 2, 1}, std::string(kRows * kCols / 2, '\x7f')}},
                        {kWeight + ".quant_map", {"F32", {16}, bytes_of({table.begin(), table.end()})}},
                        {kState, text_tensor(good_state(nested).dump())}};
  if (!nested) {
    tensors[kWeight + ".absmax"] = {"F32", {8}, bytes_of(std::vector<float>(8, 0.5f))};
    return tensors;
  }
  tensors[kWeight + ".absmax"] = {"U8", {8}, std::string(8, '\x02')};
  tensors[kWeight + ".nested_absmax"] = {"F32", {1}, bytes_of({2.0f})};
  tensors[kWeight + ".nested_quant_map"] = {"F32", {256}, bytes_of(std::vector<float>(256, 0.125f))};
  return tensors;
}

HostMatrix load(const TempDir& dir, const RawTensors& tensors) {
  TensorTable table(dir.path().string());
  const auto file = MappedFile::open(dir.write("model.safetensors", safetensors_of(tensors)));
  for (StoredTensor& tensor : read_safetensors(file).tensors) table.add(std::move(tensor));
  return read_bitsandbytes(table, kWeight, kRows, kCols).load();
}

TEST(Bitsandbytes, GoodWeightsAreRead) {
  const TempDir dir;
  std::vector<float> row(kCols);
  dequantize_row(load(dir, good_tensors(false)), 1, row);
  EXPECT_EQ(row[0], 0.0f);  // the high nibble: code 7
  EXPECT_EQ(row[1], 0.5f);  // code 15
  dequantize_row(load(dir, good_tensors(true)), 3, row);
  EXPECT_EQ(row[1], 0.125f * 2 + 0.25f);
}

// What stays unquantised beside quantised weights (llm_int8_skip_modules) has any of three dtypes.
TEST(Bitsandbytes, WeightsWithoutAbsmaxAreDense) {
  const TempDir dir;
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    const std::string bytes(kRows * kCols * size_of(dtype), '\x3c');
    const HostMatrix m = load(dir, {{kWeight, {std::string(name_of(dtype)), {kRows, kCols}, bytes}}});
    EXPECT_FALSE(m.quant);
    EXPECT_EQ(m.dense_dtype, dtype);
  }
}

struct Fault {
  std::string name;
  bool nested;
  std::function<void(RawTensors&)> change;
  std::string tensor, expected;  // `tensor`: what follows "w.weight"
};
[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Fault& test) {
  return out << test.name;
}

// A change of one key of the state.
std::function<void(RawTensors&)> state(const std::string& key, const json& value, bool nested = false) {
  return [=](RawTensors& tensors) {
    json changed = good_state(nested);
    changed[key] = value;
    tensors[kState] = text_tensor(changed.dump());
  };
}
std::function<void(RawTensors&)> state_text(const std::string& text) {
  return [=](RawTensors& tensors) { tensors[kState] = text_tensor(text); };
}
std::function<void(RawTensors&)> tensor(const std::string& suffix, const RawTensor& value) {
  return [=](RawTensors& tensors) { tensors[kWeight + suffix] = value; };
}
std::function<void(RawTensors&)> without(const std::string& suffix) {
  return [=](RawTensors& tensors) { tensors.erase(kWeight + suffix); };
}
RawTensor floats(size_t count, float value, float last) {
  std::vector<float> values(count, value);
  values.back() = last;
  return {"F32", {static_cast<int64_t>(count)}, bytes_of(values)};
}

const std::string kStateName = ".quant_state.bitsandbytes__nf4";
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

class BitsandbytesFault : public testing::TestWithParam<Fault> {};

TEST_P(BitsandbytesFault, IsNamed) {
  const TempDir dir;
  RawTensors tensors = good_tensors(GetParam().nested);
  GetParam().change(tensors);
  EXPECT_THAT(message_of([&] { load(dir, tensors); }),
              AllOf(HasSubstr(dir.path().string()),
                    HasSubstr("tensor w.weight" + GetParam().tensor + GetParam().expected)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BitsandbytesFault,
    testing::Values(
        Fault{"type", false, state("quant_type", "fp4"), kStateName, ": quant_type is not \"nf4\""},
        Fault{"shape_transposed", false, state("shape", {kCols, kRows}), kStateName,
              ": shape is not [4, 128]"},
        Fault{"shape_of_another", false, state("shape", {kRows, 64}), kStateName, ": shape is not [4, 128]"},
        Fault{"shape_missing", false, state_text(R"({"quant_type":"nf4","blocksize":64})"), kStateName,
              ": shape is not [4, 128]"},
        Fault{"blocksize_zero", false, state("blocksize", 0), kStateName, ": blocksize is not a block size"},
        Fault{"blocksize_text", false, state("blocksize", "64"), kStateName,
              ": blocksize is not a block size"},
        Fault{"blocksize_negative", false, state("blocksize", -64), kStateName,
              ": blocksize is not a block size"},
        Fault{"blocksize_of_another", false, state("blocksize", 128), ".absmax",
              ": shape is [8], expected [4]"},
        Fault{"blocksize_8", false, state("blocksize", 8), "",
              ": blocksize 8 with rows of 128 is not supported"},
        Fault{"nested_blocksize", true, state("nested_blocksize", 4, true), ".nested_absmax",
              ": shape is [1], expected [2]"},
        Fault{"nested_blocksize_zero", true, state("nested_blocksize", 0, true), kStateName,
              ": nested_blocksize is not a block size"},
        Fault{"nested_dtype", true, state("nested_dtype", "float16", true), kStateName,
              ": nested_dtype is not \"float32\""},
        Fault{"nested_offset_text", true, state("nested_offset", "0.25", true), kStateName,
              ": nested_offset is not a number"},
        Fault{"nested_offset_past_fp32", true, state("nested_offset", 1e300, true), "",
              ": the scale of row 0, group 0 is not finite"},
        Fault{"nested_in_the_state_only", false, state_text(good_state(true).dump()), ".absmax",
              ": dtype is F32, expected U8"},
        Fault{"nested_not_in_the_state", true, state_text(good_state(false).dump()), ".absmax",
              ": dtype is U8, expected F32"},
        Fault{"state_not_json", false, state_text("{\"blocksize\""), kStateName, ": not valid JSON"},
        Fault{"state_a_list", false, state_text("[]"), kStateName, ": is not a JSON object"},
        Fault{"state_key_twice", false, state_text(R"({"blocksize":64,"blocksize":64})"), kStateName,
              ": blocksize appears twice"},
        Fault{"state_not_bytes", false, tensor(kStateName, {"I8", {2}, "{}"}), kStateName,
              ": dtype is I8, expected U8"},
        Fault{"no_state", false, without(kStateName), kStateName, " is missing"},
        Fault{"no_map", false, without(".quant_map"), ".quant_map", " is missing"},
        Fault{"no_absmax", false, without(".absmax"), ".absmax", " is missing"},
        Fault{"no_nested_absmax", true, without(".nested_absmax"), ".nested_absmax", " is missing"},
        Fault{"no_nested_map", true, without(".nested_quant_map"), ".nested_quant_map", " is missing"},
        Fault{"map_short", false, tensor(".quant_map", floats(15, 0, 0)), ".quant_map",
              ": shape is [15], expected [16]"},
        Fault{"map_of_another", false, tensor(".quant_map", floats(16, 0, 1)), ".quant_map",
              ": is not bitsandbytes' NF4 table"},
        Fault{"weight_short", false, tensor("", {"U8", {255, 1}, std::string(255, 'x')}), "",
              ": shape is [255, 1], expected [256, 1]"},
        Fault{"weight_signed", false, tensor("", {"I8", {256, 1}, std::string(256, 'x')}), "",
              ": dtype is I8, expected U8"},
        Fault{"absmax_short", false, tensor(".absmax", floats(7, 1, 1)), ".absmax",
              ": shape is [7], expected [8]"},
        Fault{"absmax_long", false, tensor(".absmax", floats(9, 1, 1)), ".absmax",
              ": shape is [9], expected [8]"},
        Fault{"absmax_codes_short", true, tensor(".absmax", {"U8", {7}, std::string(7, 'x')}), ".absmax",
              ": shape is [7], expected [8]"},
        Fault{"nested_absmax_long", true, tensor(".nested_absmax", floats(2, 1, 1)), ".nested_absmax",
              ": shape is [2], expected [1]"},
        Fault{"nested_map_short", true, tensor(".nested_quant_map", floats(255, 0, 0)), ".nested_quant_map",
              ": shape is [255], expected [256]"},
        Fault{"absmax_nan", false, tensor(".absmax", floats(8, 1, kNaN)), "",
              ": the scale of row 3, group 1 is not finite"},
        Fault{"absmax_infinite", false, tensor(".absmax", floats(8, 1, kInf)), "",
              ": the scale of row 3, group 1 is not finite"},
        Fault{"nested_absmax_nan", true, tensor(".nested_absmax", floats(1, 1, kNaN)), "",
              ": the scale of row 0, group 0 is not finite"},
        Fault{"nested_map_nan", true, tensor(".nested_quant_map", floats(256, kNaN, 0)), "",
              ": the scale of row 0, group 0 is not finite"}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace tramontane
