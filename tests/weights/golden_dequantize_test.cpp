// Dequantised weights against the source libraries' own, bit for bit: whole checkpoints and stand-alone
// matrices.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "engine/weights/bitsandbytes.h"
#include "engine/weights/mlx.h"
#include "engine/weights/safetensors.h"
#include "tests/support/golden.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using nlohmann::json;

template <typename T>
T element(const StoredTensor& tensor, size_t index) {
  T value;
  std::memcpy(&value, tensor.bytes.data() + index * sizeof value, sizeof value);
  return value;
}

void expect_same_bits(const std::vector<float>& got, const StoredTensor& want) {
  ASSERT_EQ(got.size() * sizeof(float), want.bytes.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const auto value = element<float>(want, i);
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(value))
        << want.name << " element " << i << ": " << got[i] << ", expected " << value;
  }
}

TensorTable table_of(const std::filesystem::path& path) {
  TensorTable table(path.string());
  for (StoredTensor& tensor : read_safetensors(MappedFile::open(path)).tensors) table.add(std::move(tensor));
  return table;
}

class GoldenCheckpoint : public testing::TestWithParam<const char*> {};

TEST_P(GoldenCheckpoint, DequantisesAsItsLibraryDoes) {
  const std::string model = GetParam();
  GOLDEN_OR_SKIP(folder, model);
  GOLDEN_OR_SKIP(expected, model + ".dequant.safetensors");
  const auto checkpoint = Checkpoint::open(folder);
  int compared = 0;
  for (const StoredTensor& want : read_safetensors(MappedFile::open(expected)).tensors) {
    const std::string name = want.name.substr(0, want.name.size() - 5);  // ".fp32" or ".bf16"
    const Checkpoint::Dequantized got = checkpoint->dequantize(name);
    EXPECT_EQ(got.shape, want.shape);
    if (want.name.ends_with(".fp32")) {
      expect_same_bits(got.values, want);
      ++compared;
    } else if (model.find("mlx") ==
               std::string::npos) {  // bitsandbytes' BF16 is the FP32 value rounded once; MLX rounds twice
      for (size_t i = 0; i < got.values.size(); ++i)
        ASSERT_EQ(float_to_bf16(got.values[i]), element<uint16_t>(want, i)) << want.name << " " << i;
      ++compared;
    }
  }
  EXPECT_GE(compared, 2);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenCheckpoint,
                         testing::Values("tiny-v0.3-mlx-q8", "tiny-v0.3-mlx-q6", "tiny-v0.3-mlx-q4",
                                         "tiny-v0.3-mlx-q4g32", "tiny-v0.3-mlx-q3", "tiny-v0.2-fp4",
                                         "tiny-nf4", "tiny-nf4-dq", "tiny-fp4-dq"),
                         [](const auto& test) {
                           std::string name = test.param;
                           for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
                           return name;
                         });

StoredWeight read_case(TensorTable& table, const json& entry) {
  const std::string name = entry["name"].get<std::string>() + ".weight";
  const auto rows = entry["shape"][0].get<int64_t>(), cols = entry["shape"][1].get<int64_t>();
  if (entry["format"] == "bitsandbytes") return read_bitsandbytes(table, name, rows, cols);
  return MlxReader({{"bits", entry["bits"]}, {"group_size", entry["group_size"]}, {"mode", entry["mode"]}})(
      table, name, rows, cols);
}

// A row as the library itself gives it in BF16: bitsandbytes rounds the FP32 value once, mx.dequantize the
// product and then the sum.
std::vector<uint16_t> library_bf16(const HostMatrix& m, int64_t n) {
  HostMatrix products = m;
  products.quant->has_bias = false;
  products.biases = {};
  std::vector<float> row(static_cast<size_t>(m.k));
  dequantize_row(products, n, row);
  std::vector<uint16_t> rounded(row.size());
  for (size_t k = 0; k < row.size(); ++k) {
    rounded[k] = float_to_bf16(row[k]);
    if (!m.quant->has_bias) continue;
    const auto group = static_cast<size_t>(m.quant->group);
    uint16_t bias;
    std::memcpy(&bias, m.biases.data() + (static_cast<size_t>(n) * row.size() + k) / group * sizeof bias,
                sizeof bias);
    rounded[k] = float_to_bf16(bf16_to_float(rounded[k]) + bf16_to_float(bias));
  }
  return rounded;
}

TEST(GoldenMatrices, AllSupportedOnesMatchAndTheOthersAreRefused) {
  GOLDEN_OR_SKIP(list, "matrices.json");
  GOLDEN_OR_SKIP(data, "matrices.safetensors");
  TensorTable table = table_of(data);
  const json cases = read_json_file(list);
  int matched = 0, refused = 0;
  for (const json& entry : cases["cases"]) {
    const std::string name = entry["name"];
    SCOPED_TRACE(name);
    const bool mx = entry["format"] == "mlx" && entry["mode"] != "affine";
    if (mx) {
      EXPECT_THAT(message_of([&] { read_case(table, entry); }),
                  testing::HasSubstr(entry["mode"].get<std::string>()));
      ++refused;
      continue;
    }
    const StoredWeight weight = read_case(table, entry);
    const HostMatrix m = weight.load();
    std::vector<float> values(static_cast<size_t>(m.n * m.k));
    for (int64_t n = 0; n < m.n; ++n)
      dequantize_row(m, n, std::span(values).subspan(static_cast<size_t>(n * m.k), static_cast<size_t>(m.k)));
    expect_same_bits(values, table.take(name + ".expected_fp32"));
    const StoredTensor& bf16 = table.take(name + ".expected_bf16");
    for (int64_t n = 0; n < m.n; ++n) {
      const auto row = library_bf16(m, n);
      ASSERT_EQ(std::memcmp(row.data(), bf16.bytes.data() + static_cast<size_t>(n * m.k) * 2, row.size() * 2),
                0)
          << "BF16 row " << n;
    }
    ++matched;
  }
  EXPECT_EQ(matched, 30);
  EXPECT_EQ(refused, 3);
}

// The newer MLX modes are refused also where the config does not name them.
TEST(GoldenMatrices, ScalesWithoutBiasesAreRefused) {
  GOLDEN_OR_SKIP(data, "matrices.safetensors");
  TensorTable table = table_of(data);
  const json quantization = {{"bits", 4}, {"group_size", 32}};
  const MlxReader reader(quantization);
  EXPECT_THAT(message_of([&] { reader(table, "mlx_mxfp4.weight", 16, 256); }),
              testing::HasSubstr("has no biases"));
}

}  // namespace
}  // namespace tramontane
