// Every GGUF block type against the public gguf package's own dequantisation, bit for bit
// (data/make_gguf_blocks.py).
#include "engine/weights/gguf_blocks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "engine/weights/safetensors.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

class GgufBlocks : public testing::TestWithParam<const char*> {};

TEST_P(GgufBlocks, MatchTheReference) {
  const std::string type = GetParam();
  const auto path =
      std::filesystem::path(TRAMONTANE_SOURCE_DIR) / "tests/weights/data/gguf_blocks.safetensors";
  TensorTable reference("reference"), stored("stored");
  for (StoredTensor& tensor : read_safetensors(MappedFile::open(path)).tensors) reference.add(tensor);
  StoredTensor blocks = reference.take(type + ".blocks");
  const StoredTensor& expected = reference.take(type + ".expected");
  const int64_t rows = expected.shape[0], cols = expected.shape[1];
  blocks.name = "w";
  blocks.dtype = type;
  blocks.shape = {rows, cols};
  stored.add(blocks);
  const StoredWeight weight = read_gguf_weight(stored, "w", rows, cols);
  const HostMatrix m = weight.load();
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t n = 0; n < rows; ++n) {
    dequantize_row(m, n, row);
    const std::byte* want = expected.bytes.data() + static_cast<size_t>(n) * row.size() * sizeof(float);
    for (size_t k = 0; k < row.size(); ++k) {
      float value;
      std::memcpy(&value, want + k * sizeof value, sizeof value);
      ASSERT_EQ(std::bit_cast<uint32_t>(row[k]), std::bit_cast<uint32_t>(value))
          << type << " [" << n << ", " << k << "]: " << row[k] << ", expected " << value;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, GgufBlocks,
                         testing::Values("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K",
                                         "Q5_K", "Q6_K"),
                         [](const auto& test) { return std::string(test.param); });

// Every half-precision number of a block is a scale, or what scales are made of.
TEST(GgufBlocks, ScalesThatAreNotFiniteAreNamed) {
  const std::map<std::string, std::vector<size_t>> halves = {
      {"Q4_0", {0}},      {"Q4_1", {0, 2}}, {"Q5_0", {0}},    {"Q5_1", {0, 2}}, {"Q8_0", {0}},
      {"Q2_K", {80, 82}}, {"Q3_K", {108}},  {"Q4_K", {0, 2}}, {"Q5_K", {0, 2}}, {"Q6_K", {208}}};
  const TempDir dir;
  for (uint32_t number = 0; number < 64; ++number) {
    const GgmlType* type = find_ggml_type(number);
    if (type == nullptr || type->dense || !type->supported()) continue;
    const std::string name(type->name);
    const auto fault_with = [&](size_t at, int half) {
      std::string blocks(2 * type->bytes, '\x11');
      for (const size_t i : halves.at(name)) std::memset(blocks.data() + i, 0, 2);
      for (const size_t i : halves.at(name)) std::memset(blocks.data() + type->bytes + i, 0, 2);
      std::memcpy(blocks.data() + type->bytes + at, &half, 2);
      const auto path = dir.write("m", safetensors_of({{"w", {"U8", {2 * type->bytes}, blocks}}}));
      StoredTensor tensor = read_safetensors(MappedFile::open(path)).tensors.at(0);
      tensor.dtype = name;
      tensor.shape = {2, type->block};
      TensorTable table("m");
      table.add(tensor);
      return message_of([&] { read_gguf_weight(table, "w", 2, type->block).load(); });
    };
    for (const size_t at : halves.at(name)) {
      EXPECT_EQ(fault_with(at, 0x7bff), "") << name << ", the largest finite number at " << at;
      for (const int half : {0x7e00, 0x7c00, 0xfc00}) {
        const std::string what = at == halves.at(name)[0] ? "scale" : "bias";
        EXPECT_THAT(fault_with(at, half), testing::HasSubstr("tensor w: the " + what + " of row 1, group "))
            << name << ", " << half << " at " << at;
      }
    }
  }
}

TEST(GgufTypes, EverySupportedTypeHasBlocksThatFitItsLayout) {
  for (uint32_t number = 0; number < 64; ++number) {
    const GgmlType* type = find_ggml_type(number);
    if (type == nullptr || type->dense || !type->supported()) continue;
    EXPECT_EQ(type->block % static_cast<uint32_t>(type->layout.group), 0u) << type->name;
  }
}

}  // namespace
}  // namespace tramontane
