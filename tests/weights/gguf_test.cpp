// Hostile and damaged GGUF files: each is refused with one line that names the file and the fault.
#include "engine/weights/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string read_fault(const std::string& bytes) {
  const TempDir dir;
  const auto path = dir.write("m.gguf", bytes);
  return message_of([&] { read_gguf(MappedFile::open(path)); });
}

std::string header(uint64_t tensors, uint64_t keys) {
  return "GGUF" + le32(3) + le64(tensors) + le64(keys);
}
std::string zeros(size_t count) {
  return std::string(count, '\0');
}

// An array of arrays of … of one byte.
std::string nested_arrays(int depth) {
  std::string bytes;
  for (int i = 0; i < depth; ++i) bytes += le32(9) + le64(1);
  return bytes + le32(0) + le64(1) + "x";
}

struct Fault {
  std::string name, bytes, expected;
};
// How GoogleTest shows a case.
[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Fault& test) {
  return out << test.name;
}
class GgufFault : public testing::TestWithParam<Fault> {};

TEST_P(GgufFault, IsNamed) {
  const std::string message = read_fault(GetParam().bytes);
  EXPECT_THAT(message, AllOf(HasSubstr("m.gguf"), HasSubstr(GetParam().expected)));
}

INSTANTIATE_TEST_SUITE_P(
    All, GgufFault,
    testing::Values(
        Fault{"magic", "GGML" + zeros(60), "is not a GGUF file"},
        Fault{"short", "GG", "ends inside the magic number"},
        Fault{"version_1", "GGUF" + le32(1) + zeros(60), "version 1 is not supported"},
        Fault{"big_endian", "GGUF" + std::string("\0\0\0\3", 4) + zeros(60), "is not supported"},
        Fault{"tensor_count", header(UINT64_MAX, 0), "the tensor count is 18446744073709551615"},
        Fault{"tensor_count_past_the_file", header(100, 0) + zeros(64), "the tensor count is 100"},
        Fault{"key_count", header(0, 1000) + zeros(64), "the metadata count is 1000"},
        Fault{"key_length", header(0, 1) + le64(UINT64_MAX) + zeros(64), "ends inside a metadata key"},
        Fault{"string_length", GgufBuilder().raw("k", 8, le64(1ull << 62)).bytes(),
              "ends inside a metadata string"},
        Fault{"array_length", GgufBuilder().raw("k", 9, le32(0) + le64(1ull << 40)).bytes(),
              "an array's length is 1099511627776"},
        Fault{"array_nesting", GgufBuilder().raw("k", 9, nested_arrays(6)).bytes(),
              "metadata k: arrays nested too deep"},
        Fault{"value_type", GgufBuilder().raw("k", 13, zeros(8)).bytes(),
              "metadata k: unknown value type 13"},
        Fault{"element_type", GgufBuilder().raw("k", 9, le32(77) + le64(1) + zeros(8)).bytes(),
              "metadata k: unknown value type 77"},
        Fault{"key_twice", GgufBuilder().u32("k", 1).u32("k", 2).bytes(), "metadata k appears twice"},
        Fault{"alignment_zero", GgufBuilder().u32("general.alignment", 0).bytes(), "general.alignment"},
        Fault{"alignment_3", GgufBuilder().u32("general.alignment", 3).bytes(), "general.alignment"},
        Fault{"alignment_text", GgufBuilder().text("general.alignment", "32").bytes(), "general.alignment"},
        Fault{"dimensions", GgufBuilder().tensor("t", {1, 1, 1, 1, 1}, 0, "1234").bytes(),
              "tensor t: has 5 dimensions"},
        Fault{"no_dimensions", GgufBuilder().tensor("t", {}, 0, "1234").bytes(),
              "tensor t: has 0 dimensions"},
        Fault{"size_zero", GgufBuilder().tensor("t", {4, 0}, 0, "").bytes(), "tensor t: impossible size 0"},
        Fault{"size_overflow", GgufBuilder().tensor("t", {1ll << 40, 1ll << 40}, 0, "").bytes(),
              "tensor t: impossible size"},
        Fault{"bytes_overflow", GgufBuilder().tensor("t", {1ll << 62}, 0, "").bytes(),
              "tensor t: shape is larger"},
        Fault{"type_number", GgufBuilder().tensor("t", {4}, 4000, "").bytes(),
              "tensor t: unknown type number 4000"},
        Fault{"type_named", GgufBuilder().tensor("t", {256}, 16, zeros(66)).bytes(),
              "tensor t: type IQ2_XXS is not supported"},
        Fault{"row_not_blocks", GgufBuilder().tensor("t", {2, 33}, 2, zeros(64)).bytes(),
              "tensor t: rows of 33 elements"},
        Fault{"offset_misaligned", GgufBuilder().tensor("t", {1}, 0, zeros(64), 4).bytes(),
              "tensor t: offset is 4, expected 0"},
        Fault{"truncated", GgufBuilder().tensor("t", {8}, 0, zeros(28)).bytes(),
              "tensor t: 32 bytes at offset 0 reach past"},
        Fault{"offset_past_the_end", GgufBuilder().tensor("t", {1}, 0, zeros(32), 1ll << 40).bytes(),
              "tensor t: offset is 1099511627776, expected 0"},
        Fault{"overlap",
              GgufBuilder().tensor("t", {16}, 0, zeros(64)).tensor("u", {8}, 0, zeros(32), 32).bytes(),
              "tensor u: offset is 32, expected 64"},
        Fault{"gap", GgufBuilder().tensor("t", {8}, 0, zeros(32)).tensor("u", {8}, 0, zeros(64), 64).bytes(),
              "tensor u: offset is 64, expected 32"},
        // Written as Q8_0 (34 bytes a block), listed as Q5_0 (22).
        Fault{"another_type",
              GgufBuilder().tensor("t", {4, 32}, 6, zeros(136)).tensor("u", {8}, 0, zeros(32)).bytes(),
              "tensor u: offset is 160, expected 96"},
        Fault{"name_twice",
              GgufBuilder().tensor("t", {8}, 0, zeros(32)).tensor("t", {8}, 0, zeros(32)).bytes(),
              "tensor t appears twice"}),
    [](const auto& test) { return test.param.name; });

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string whole = small_gguf().bytes();
  EXPECT_EQ(read_fault(whole), "");
  for (size_t size = 1; size < whole.size(); size += 1 + size / 40) {
    EXPECT_NE(read_fault(whole.substr(0, size)), "") << size << " bytes";
  }
}

TEST(Gguf, ReadsEveryMetadataType) {
  GgufBuilder file(2);
  file.raw("u8", 0, "\xff")
      .raw("i8", 1, "\xff")
      .raw("u16", 2, "\xff\xff")
      .raw("i16", 3, "\xff\xff")
      .u32("u32", 0xffffffffu);
  file.raw("i32", 5, le32(0xffffffffu)).f32("f32", 0.5f).raw("bool", 7, "\1").text("text", "é");
  file.raw("list", 9, le32(8) + le64(2) + gguf_string("a") + gguf_string(""))
      .raw("u64", 10, le64(UINT64_MAX))
      .raw("i64", 11, le64(UINT64_MAX));
  const double quarter = 0.25;
  file.raw("f64", 12, {reinterpret_cast<const char*>(&quarter), sizeof quarter});
  const TempDir dir;
  const nlohmann::json metadata = read_gguf(MappedFile::open(dir.write("m.gguf", file.bytes()))).metadata;
  const nlohmann::json expected = {
      {"u8", 255},         {"i8", -1},   {"u16", 65535}, {"i16", -1},   {"u32", 4294967295},
      {"i32", -1},         {"f32", 0.5}, {"bool", true}, {"text", "é"}, {"list", {"a", ""}},
      {"u64", UINT64_MAX}, {"i64", -1},  {"f64", 0.25}};
  EXPECT_EQ(metadata, expected);
}

TEST(Gguf, HonoursTheFilesAlignment) {
  const TempDir dir;
  GgufBuilder file;
  file.u32("general.alignment", 64).tensor("t", {16}, 0, std::string(64, 'a'), 0);
  std::string bytes = file.bytes();
  bytes.resize((bytes.size() - 64 + 63) / 64 * 64, '\0');
  bytes.resize(bytes.size() / 64 * 64);
  bytes += std::string(64, 'b');
  const GgufFile read = read_gguf(MappedFile::open(dir.write("m.gguf", bytes)));
  EXPECT_EQ(static_cast<char>(read.tensors.at(0).bytes[63]), 'b');
}

}  // namespace
}  // namespace tramontane
