#include "engine/weights/quantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "engine/weights/checkpoint.h"
#include "engine/weights/quantize_tensor.h"
#include "engine/weights/safetensors.h"
#include "tests/support/golden.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

void ignore_progress(uint64_t, uint64_t) {}

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

QuantizeReport quantize(const fs::path& model, const std::string& to, const fs::path& out, int group = 64,
                        uint64_t shard_bytes = 0) {
  return quantize_checkpoint({.model = model,
                              .out = out,
                              .to = parse_quantize_target(to),
                              .group = group,
                              .threads = 2,
                              .shard_bytes = shard_bytes},
                             ignore_progress);
}

// The same tensors, byte for byte; returns how many.
size_t expect_same_tensors(const fs::path& got_folder, const fs::path& want_folder) {
  SafetensorsFolder got = read_safetensors_folder(got_folder, "model.safetensors");
  SafetensorsFolder want = read_safetensors_folder(want_folder, "model.safetensors");
  EXPECT_EQ(got.made_by, want.made_by);
  EXPECT_EQ(got.table.unused().size(), want.table.unused().size());
  size_t compared = 0;
  for (const StoredTensor* tensor : want.table.unused()) {
    if (!got.table.has(tensor->name)) {
      ADD_FAILURE() << tensor->name << " is missing";
      continue;
    }
    const StoredTensor& other = got.table.take(tensor->name);
    EXPECT_EQ(other.dtype, tensor->dtype) << tensor->name;
    EXPECT_EQ(other.shape, tensor->shape) << tensor->name;
    EXPECT_TRUE(std::ranges::equal(other.bytes, tensor->bytes)) << tensor->name;
    ++compared;
  }
  return compared;
}

struct MlxCase {
  const char* to;
  int group;
  const char* golden;
};
class QuantizeGolden : public testing::TestWithParam<MlxCase> {};

TEST_P(QuantizeGolden, EqualsWhatMlxLmConvertWrites) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(want, GetParam().golden);
  const TempDir dir;
  quantize(source, GetParam().to, dir.path() / "out", GetParam().group);
  EXPECT_EQ(expect_same_tensors(dir.path() / "out", want), 76u);  // 23 matrices of 3, 7 norms
  for (const char* file : {"config.json", "model.safetensors.index.json", "generation_config.json"})
    EXPECT_EQ(text_of(dir.path() / "out" / file), text_of(want / file)) << file;
  EXPECT_EQ(text_of(dir.path() / "out" / "tokenizer.model.v3"), text_of(source / "tokenizer.model.v3"));
}

INSTANTIATE_TEST_SUITE_P(
    Mlx, QuantizeGolden,
    testing::Values(MlxCase{"q8", 64, "tiny-v0.3-mlx-q8"}, MlxCase{"q6", 64, "tiny-v0.3-mlx-q6"},
                    MlxCase{"q4", 64, "tiny-v0.3-mlx-q4"}, MlxCase{"q3", 64, "tiny-v0.3-mlx-q3"},
                    MlxCase{"q4", 32, "tiny-v0.3-mlx-q4g32"}),
    [](const auto& test) { return test.param.to + std::string("_") + std::to_string(test.param.group); });

TEST(QuantizeGolden, Bf16IsTheSourceAgain) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  quantize(source, "bf16", dir.path() / "out");
  EXPECT_EQ(expect_same_tensors(dir.path() / "out", source), 30u);
}

DType dtype_named(const std::string& name) {
  return name == "BF16" ? DType::bf16 : name == "F16" ? DType::f16 : DType::f32;
}

float element(const StoredTensor& tensor, size_t index) {
  if (tensor.dtype == "F32") {
    float value;
    std::memcpy(&value, tensor.bytes.data() + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, tensor.bytes.data() + index * 2, 2);
  return tensor.dtype == "F16" ? f16_to_float(bits) : bf16_to_float(bits);
}

// Ties between codes, zeros, magnitudes below the reciprocal's limit, in three dtypes: made by
// data/make_bitsandbytes_blocks.py with the library itself.
TEST(QuantizeBitsandbytes, EqualsTheLibrary) {
  TensorTable table("fixture");
  std::vector<std::string> names;
  for (StoredTensor& tensor :
       read_safetensors(
           MappedFile::open(TRAMONTANE_SOURCE_DIR "/tests/weights/data/bitsandbytes_blocks.safetensors"))
           .tensors) {
    if (tensor.name.ends_with(".values")) names.push_back(tensor.name.substr(0, tensor.name.size() - 7));
    table.add(std::move(tensor));
  }
  ASSERT_EQ(names.size(), 8u);
  for (const std::string& name : names) {
    const StoredTensor& values = table.take(name + ".values");
    for (const bool fp4 : {true, false}) {
      const TensorPlan plan{"w.weight",
                            values.shape[0],
                            values.shape[1],
                            dtype_named(values.dtype),
                            fp4 ? Encoding::fp4 : Encoding::nf4,
                            4,
                            64};
      const RowReader read = [&](int64_t row, std::span<float> out) {
        for (size_t i = 0; i < out.size(); ++i)
          out[i] = element(values, static_cast<size_t>(row) * out.size() + i);
      };
      const auto parts = encode_tensor(plan, read, 2, [](int64_t) {});
      size_t i = 0;
      for (const char* part : {"weight", "absmax", "map", "state"}) {
        const StoredTensor& want = table.take(name + (fp4 ? ".fp4." : ".nf4.") + part);
        EXPECT_TRUE(std::ranges::equal(parts[i++], want.bytes)) << want.name;
      }
    }
  }
}

TEST(QuantizeBitsandbytes, LoadsAndStaysWithinHalfAStep) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  const auto original = Checkpoint::open(source);
  // The widest gap between neighbouring codes, of absmax: FP4 between 2/3 and 1, NF4 between -1 and -0.696.
  for (const auto& [to, format, gap] :
       {std::tuple{"fp4", "bitsandbytes FP4", 0.3334f}, {"nf4", "bitsandbytes NF4", 0.3039f}}) {
    const fs::path out = dir.path() / to;
    EXPECT_EQ(quantize(source, to, out).quantized, 21);
    EXPECT_FALSE(fs::exists(out / "model.safetensors.index.json"));
    const auto made = Checkpoint::open(out);
    EXPECT_EQ(made->format(), format);
    for (const TensorInfo& info : made->tensors()) {
      const auto want = original->dequantize(info.name).values, got = made->dequantize(info.name).values;
      ASSERT_EQ(want.size(), got.size());
      if (info.format == "BF16") {
        EXPECT_EQ(want, got) << info.name;
        continue;
      }
      for (size_t block = 0; block < want.size(); block += 64) {
        float absmax = 0;
        for (size_t i = block; i < block + 64; ++i) absmax = std::max(absmax, std::fabs(want[i]));
        for (size_t i = block; i < block + 64; ++i)
          ASSERT_NEAR(got[i], want[i], gap / 2 * absmax) << info.name;
      }
    }
  }
}

TEST(Quantize, WritesSeveralFilesWithAnIndex) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  quantize(source, "nf4", dir.path() / "one");
  quantize(source, "nf4", dir.path() / "many", 64, 5'000'000);
  EXPECT_TRUE(fs::exists(dir.path() / "many" / "model-00001-of-00002.safetensors"));
  EXPECT_TRUE(fs::exists(dir.path() / "many" / "model.safetensors.index.json"));
  EXPECT_GT(expect_same_tensors(dir.path() / "many", dir.path() / "one"), 90u);
  const auto index = nlohmann::json::parse(text_of(dir.path() / "many" / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], Checkpoint::open(dir.path() / "one")->weight_bytes());
  // Every tensor lies where its elements are aligned, the odd-sized quant_state texts notwithstanding.
  const auto many = read_safetensors_folder(dir.path() / "many", "model.safetensors");
  for (const StoredTensor* tensor : many.table.unused()) {
    const auto address = reinterpret_cast<uintptr_t>(tensor->bytes.data());
    const size_t width = tensor->dtype == "F32" ? 4 : tensor->dtype == "U8" ? 1 : 2;
    EXPECT_EQ(address % width, 0u) << tensor->name;
  }
}

TEST(Quantize, LeavesMatricesDenseThatTheGroupDoesNotDivide) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  const QuantizeReport report = quantize(source, "q4", dir.path() / "out", 128);
  EXPECT_EQ(report.quantized, 3);  // o_proj alone has rows of 128
  EXPECT_EQ(report.left_dense.size(), 20u);
  const auto made = Checkpoint::open(dir.path() / "out");
  for (const TensorInfo& info : made->tensors())
    EXPECT_EQ(info.format, info.name.find("o_proj") != std::string::npos ? "MLX affine 4-bit g128" : "BF16")
        << info.name;
}

TEST(Quantize, BringsGgufRowsToHuggingFaceOrder) {
  const TempDir dir;
  const fs::path gguf = dir.write("model.gguf", small_gguf().bytes());
  quantize(gguf, "bf16", dir.path() / "out");
  const auto before = Checkpoint::open(gguf), after = Checkpoint::open(dir.path() / "out");
  EXPECT_EQ(after->format(), "Hugging Face BF16");
  EXPECT_EQ(after->config().rope_theta, before->config().rope_theta);
  EXPECT_EQ(after->config().norm_eps, before->config().norm_eps);
  EXPECT_EQ(after->config().n_kv_heads, before->config().n_kv_heads);
  EXPECT_EQ(after->has_output(), before->has_output());
  for (const Role role : {Role::tok_embeddings, Role::wq, Role::wk, Role::wv, Role::w2}) {
    const HostMatrix want = before->matrix(role, 0), got = after->matrix(role, 0);
    std::vector<float> a(static_cast<size_t>(want.k)), b(a.size());
    for (int64_t row = 0; row < want.n; ++row) {
      dequantize_row(want, row, a);
      dequantize_row(got, row, b);
      EXPECT_EQ(a, b) << role_name(role, 0) << " row " << row;
    }
  }
  // Canonical order is the file's own for GGUF; a Hugging Face file has the halves of each head apart.
  const auto stored = after->dequantize("model.layers.0.self_attn.q_proj.weight").values;
  const auto source = before->dequantize("blk.0.attn_q.weight").values;
  EXPECT_EQ(stored[8], source[16]);  // the second row is the second pair's first element
}

// mlx_lm and transformers take a missing key differently; what is written leaves them no choice.
TEST(Quantize, SaysWhetherTheEmbeddingsAreTied) {
  const TempDir dir;
  nlohmann::json config = small_config();
  config.erase("tie_word_embeddings");
  write_small_model(dir, config, small_tensors());
  quantize(dir.path(), "bf16", dir.path() / "out");
  const auto written = nlohmann::json::parse(text_of(dir.path() / "out" / "config.json"));
  EXPECT_EQ(written.value("tie_word_embeddings", nlohmann::json()),
            !Checkpoint::open(dir.path())->has_output());
}

TEST(Quantize, LeavesNothingWhenInterrupted) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  struct Interrupted {};
  int calls = 0;
  const QuantizeProgress stop = [&](uint64_t done, uint64_t total) {
    EXPECT_LE(done, total);
    if (++calls == 5) {
      EXPECT_FALSE(fs::is_empty(dir.path()));  // it is at work
      EXPECT_FALSE(fs::exists(dir.path() / "out"));
      throw Interrupted{};
    }
  };
  EXPECT_THROW(
      quantize_checkpoint({.model = source, .out = dir.path() / "out", .to = QuantizeTarget::q4}, stop),
      Interrupted);
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Quantize, ReachesTheTotalOfItsProgress) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  const TempDir dir;
  uint64_t last = 0, all = 0;
  quantize_checkpoint({.model = source, .out = dir.path() / "out"}, [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    last = done;
    all = total;
  });
  EXPECT_EQ(last, all);
}

TEST(Quantize, RefusesWhatItCannotDo) {
  GOLDEN_OR_SKIP(source, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(quantized, "tiny-v0.3-mlx-q4");
  const TempDir dir;
  const fs::path out = dir.path() / "out";
  const auto fault = [&](const fs::path& model, const char* to, int group) {
    return message_of([&] { quantize(model, to, out, group); });
  };
  EXPECT_THAT(fault(quantized, "q4", 64), HasSubstr("is quantised already (MLX affine 4-bit g64)"));
  EXPECT_THAT(fault(source, "q4", 48),
              HasSubstr("--group 48 is not supported for q4: expected 32, 64 or 128"));
  EXPECT_THAT(fault(source, "nf4", 32), HasSubstr("--group 32 is not supported for nf4: expected 64"));
  EXPECT_THAT(fault(source, "q5", 64), HasSubstr("--to \"q5\" is not a format"));
  EXPECT_THAT(fault(dir.path() / "none", "q4", 64), HasSubstr("no such file"));
  EXPECT_THAT(message_of([&] { quantize(source, "q4", ""); }), HasSubstr("the folder to write has no name"));
  EXPECT_TRUE(fs::is_empty(dir.path()));
  fs::create_directory(out);
  EXPECT_THAT(fault(source, "q4", 64), HasSubstr("out: exists already"));
  EXPECT_TRUE(fs::is_empty(out));
}

TEST(Quantize, RefusesRowsThatTheGroupDoesNotDivide) {
  const TempDir dir, result;
  write_small_model(dir, small_config(), small_tensors());
  const auto fault = [&](const char* to) {
    return message_of([&] { quantize(dir.path(), to, result.path() / "out"); });
  };
  EXPECT_THAT(fault("q4"), HasSubstr("group size 64 divides the rows of no matrix"));
  EXPECT_THAT(fault("fp4"), HasSubstr("q_proj.weight: rows of 8 are not a multiple of the block size 64"));
  EXPECT_TRUE(fs::is_empty(result.path()));
}

TEST(QuantizeTensor, RefusesWeightsThatAreNotFinite) {
  const RowReader read = [](int64_t row, std::span<float> out) {
    std::ranges::fill(out, row == 3 ? 70000.0f : 1.0f);
  };
  const auto fault = [&](DType dtype) {
    return message_of([&] {
      encode_tensor({"a.weight", 5, 64, dtype, Encoding::mlx}, read, 2, [](int64_t) {});
    });
  };
  EXPECT_EQ(fault(DType::bf16), "");
  EXPECT_EQ(fault(DType::f16), "tensor a.weight, row 3 holds a weight that is not finite as F16");
}

TEST(QuantizeTensor, RoundsToHalfPrecision) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_float(half),
                above = bits == 0x7bff ? 65536.0f : f16_to_float(static_cast<uint16_t>(bits + 1));
    ASSERT_EQ(float_to_f16(value), half);
    ASSERT_EQ(float_to_f16(-value), half | 0x8000);
    const float middle = (value + above) / 2;  // exact
    ASSERT_EQ(float_to_f16(middle), bits % 2 == 0 ? half : half + 1) << value;
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 0.0f)), half) << value;
    ASSERT_EQ(float_to_f16(std::nextafter(middle, 1e9f)), half + 1) << value;
  }
  EXPECT_EQ(float_to_f16(std::nanf("")) & 0x7e00, 0x7e00);
}

}  // namespace
}  // namespace tramontane
