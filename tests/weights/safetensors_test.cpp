// Hostile and damaged safetensors files and indexes: each is refused with one line that names file and
// tensor.
#include "engine/weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <ostream>

#include "engine/weights/safetensors_writer.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string read_fault(const std::string& bytes) {
  const TempDir dir;
  const auto path = dir.write("model.safetensors", bytes);
  return message_of([&] { read_safetensors(MappedFile::open(path)); });
}

std::string one_tensor(const std::string& entry, size_t data = 64) {
  return safetensors_bytes("{\"a\":" + entry + "}", std::string(data, 'x'));
}

struct Fault {
  std::string name, bytes, expected;
};
// How GoogleTest shows a case.
[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Fault& test) {
  return out << test.name;
}

class SafetensorsFault : public testing::TestWithParam<Fault> {};

TEST_P(SafetensorsFault, IsNamed) {
  const std::string message = read_fault(GetParam().bytes);
  EXPECT_THAT(message, AllOf(HasSubstr("model.safetensors"), HasSubstr(GetParam().expected)));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

std::string deep_json() {
  return std::string(2000, '[') + std::string(2000, ']');
}

INSTANTIATE_TEST_SUITE_P(
    All, SafetensorsFault,
    testing::Values(
        Fault{"empty", "", "is empty"}, Fault{"seven_bytes", "1234567", "too short"},
        Fault{"header_past_the_end", le64(100) + "{}", "header length 100 does not fit"},
        Fault{"header_of_2_64", le64(UINT64_MAX) + "{}", "does not fit"},
        Fault{"not_json", safetensors_bytes("{\"a\":", ""), "not valid JSON"},
        Fault{"a_list", safetensors_bytes("[]", ""), "not a JSON object"},
        Fault{"deep", safetensors_bytes(deep_json(), ""), "nested more than"},
        Fault{"deep_in_entry", one_tensor(deep_json()), "nested more than"},
        Fault{
            "twice",
            safetensors_bytes(
                R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                "xx"),
            "a appears twice"},
        Fault{"no_dtype", one_tensor(R"({"shape":[1],"data_offsets":[0,1]})"), "tensor a: has no dtype"},
        Fault{"entry_is_number", one_tensor("3"), "tensor a: has no dtype"},
        Fault{"unknown_dtype", one_tensor(R"({"dtype":"F5","shape":[1],"data_offsets":[0,1]})"),
              "tensor a: unknown dtype F5"},
        Fault{"negative_size", one_tensor(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})"),
              "tensor a: shape is not"},
        Fault{"nine_dimensions",
              one_tensor(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})"),
              "tensor a: shape is not"},
        Fault{"overflowing_shape",
              one_tensor(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"),
              "tensor a: shape is larger"},
        Fault{"overflow_to_small",
              one_tensor(R"({"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]})"),
              "tensor a: shape is larger"},
        Fault{"offsets_reversed", one_tensor(R"({"dtype":"U8","shape":[1],"data_offsets":[2,1]})"),
              "tensor a: data_offsets [2, 1]"},
        Fault{"offsets_past_the_end", one_tensor(R"({"dtype":"F32","shape":[4],"data_offsets":[56,72]})"),
              "tensor a: data_offsets [56, 72] reach past the file's 64 bytes"},
        Fault{"one_offset", one_tensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})"),
              "tensor a: data_offsets is not"},
        Fault{"float_offset", one_tensor(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1.0]})"),
              "tensor a: data_offsets is not"},
        Fault{"wrong_byte_count", one_tensor(R"({"dtype":"F32","shape":[4],"data_offsets":[0,12]})"),
              "tensor a: dtype and shape ask for 16 bytes, data_offsets give 12"},
        Fault{
            "overlap",
            safetensors_bytes(
                R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[3,7]}})",
                "12345678"),
            "tensor b overlaps tensor a"}),
    [](const auto& test) { return test.param.name; });

TEST(Safetensors, ReadsWhatIsThere) {
  const TempDir dir;
  const auto path = dir.write(
      "m.safetensors", safetensors_of({{"a", {2, 3}}, {"scalar", {}}, {"none", {0, 4}}}, "mlx") + "trailing");
  const SafetensorsFile file = read_safetensors(MappedFile::open(path));
  EXPECT_EQ(file.made_by, "mlx");
  ASSERT_EQ(file.tensors.size(), 3u);
  EXPECT_EQ(file.tensors[0].name, "a");
  EXPECT_EQ(file.tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.tensors[0].bytes.size(), 24u);
}

TEST(Safetensors, MappedFileRefusesFolders) {
  const TempDir dir;
  EXPECT_THAT(message_of([&] { MappedFile::open(dir.path()); }), HasSubstr("is a directory"));
  EXPECT_THAT(message_of([&] { MappedFile::open(dir.path() / "absent"); }),
              AllOf(HasSubstr("absent"), HasSubstr("cannot open")));
}

std::string index_fault(const TempDir& dir, const std::string& index) {
  dir.write("model.safetensors.index.json", index);
  return message_of([&] { read_safetensors_folder(dir.path(), "model.safetensors"); });
}

TEST(SafetensorsIndex, FaultsAreNamed) {
  const TempDir dir;
  dir.write("one.safetensors", safetensors_of({{"a", {2}}, {"b", {2}}}));
  dir.write("two.safetensors", safetensors_of({{"c", {2}}}));
  const std::string good =
      R"({"metadata":{"total_size":24},"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"two.safetensors"}})";
  EXPECT_EQ(index_fault(dir, good), "");
  EXPECT_THAT(index_fault(dir, "{}"), HasSubstr("has no weight_map"));
  EXPECT_THAT(index_fault(dir, "[]"), HasSubstr("has no weight_map"));
  EXPECT_THAT(index_fault(dir, R"({"weight_map":{"a":3}})"), HasSubstr("weight_map of a is not a file name"));
  EXPECT_THAT(index_fault(dir, R"({"weight_map":{"a":"../one.safetensors"}})"),
              HasSubstr("weight_map of a is not a file name"));
  EXPECT_THAT(
      index_fault(dir,
                  R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"three.safetensors"}})"),
      AllOf(HasSubstr("three.safetensors: no such file"), HasSubstr("model.safetensors.index.json"),
            HasSubstr("holds tensor c")));
  EXPECT_THAT(
      index_fault(dir,
                  R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors","c":"one.safetensors"}})"),
      AllOf(HasSubstr("one.safetensors: tensor c is missing")));
  EXPECT_THAT(index_fault(dir, R"({"weight_map":{"a":"one.safetensors"}})"),
              HasSubstr("tensor b is not listed"));
  dir.write("two.safetensors", safetensors_of({{"c", {2}}, {"a", {2}}}));
  EXPECT_THAT(index_fault(dir, good),
              AllOf(HasSubstr("two.safetensors"), HasSubstr("tensor a is not listed for this file")));
}

TEST(SafetensorsWriter, WritesWhatTheReaderReads) {
  const TempDir dir;
  const std::vector<float> values = {1.5f, -2.0f, 0.0f, 3e38f, 1e-40f, 7.0f};
  write_safetensors_f32(dir.path() / "out.safetensors",
                        {{"x", {2, 3}, values}, {"y", {1}, std::span(values).first(1)}});
  TensorTable table = read_safetensors_folder(dir.path(), "out.safetensors").table;
  const StoredTensor& x = table.take("x");
  EXPECT_EQ(x.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(x.bytes.data(), values.data(), 24), 0);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1)
      << "a temporary file is left";
}

TEST(SafetensorsWriter, NamesTheFileThatItCannotWrite) {
  const std::vector<float> values = {1.0f};
  EXPECT_THAT(message_of([&] {
                write_safetensors_f32("/nonexistent/out.safetensors", {{"x", {1}, values}});
              }),
              AllOf(HasSubstr("/nonexistent/out.safetensors"), HasSubstr("cannot write")));
  EXPECT_THAT(message_of([&] {
                write_safetensors_f32("never.safetensors", {{"x", {2}, values}});
              }),
              HasSubstr("tensor x: shape has 2"));
}

}  // namespace
}  // namespace tramontane
