// Checkpoint: layouts, roles, RoPE order, and refusals that name the tensor or the field.
#include "engine/weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "engine/weights/mapped_file.h"
#include "engine/weights/safetensors.h"
#include "tests/support/golden.h"
#include "tests/weights/builders.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

std::vector<float> row_of(const HostMatrix& m, int64_t n) {
  std::vector<float> row(static_cast<size_t>(m.k));
  dequantize_row(m, n, row);
  return row;
}

std::vector<float> stored_row(const Checkpoint::Dequantized& tensor, int64_t n) {
  const auto k = static_cast<size_t>(tensor.shape.at(1));
  const auto first = tensor.values.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(n) * k);
  return {first, first + static_cast<ptrdiff_t>(k)};
}

// Row h*d + half*(d/2) + j of the file is row h*d + 2j + half of the matrix.
void expect_interleaved(const Checkpoint& checkpoint, Role role, int32_t layer, const std::string& name) {
  const int64_t d = checkpoint.config().head_dim;
  const HostMatrix m = checkpoint.matrix(role, layer);
  const auto stored = checkpoint.dequantize(name);
  ASSERT_EQ(stored.shape, (std::vector{m.n, m.k}));
  for (int64_t h = 0; h < m.n / d; ++h) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t j = 0; j < d / 2; ++j) {
        ASSERT_EQ(row_of(m, h * d + 2 * j + half), stored_row(stored, h * d + half * (d / 2) + j))
            << name << " head " << h << " row " << j;
      }
    }
  }
}

class RopeOrder : public testing::TestWithParam<const char*> {};

TEST_P(RopeOrder, QAndKAreInterleavedAndTheRestIsNot) {
  GOLDEN_OR_SKIP(folder, GetParam());
  const auto checkpoint = Checkpoint::open(folder);
  const std::string attention = "model.layers.2.self_attn.";
  expect_interleaved(*checkpoint, Role::wq, 2, attention + "q_proj.weight");
  expect_interleaved(*checkpoint, Role::wk, 2, attention + "k_proj.weight");
  for (const auto& [role, name] : {std::pair{Role::wv, "v_proj.weight"}, {Role::wo, "o_proj.weight"}}) {
    const HostMatrix m = checkpoint->matrix(role, 2);
    const auto stored = checkpoint->dequantize(attention + name);
    for (int64_t n = 0; n < m.n; ++n) ASSERT_EQ(row_of(m, n), stored_row(stored, n)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, RopeOrder,
                         testing::Values("tiny-v0.3-bf16", "tiny-v0.3-mlx-q4", "tiny-v0.3-mlx-q6",
                                         "tiny-nf4-dq"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::ranges::replace_if(
                               name, [](char c) { return c == '-' || c == '.'; }, '_');
                           return name;
                         });

TEST(Checkpoint, ReadsAShardedBf16Folder) {
  GOLDEN_OR_SKIP(folder, "tiny-v0.3-bf16");
  const auto checkpoint = Checkpoint::open(folder);
  EXPECT_EQ(checkpoint->format(), "Hugging Face BF16");
  EXPECT_EQ(checkpoint->weight_bytes(), 8733568u);
  EXPECT_TRUE(checkpoint->has_output());
  EXPECT_EQ(checkpoint->tensors().size(), 30u);
  EXPECT_EQ(checkpoint->tokenizer().sentencepiece_file.filename(), "tokenizer.model.v3");
  EXPECT_EQ(checkpoint->config().head_dim, 16);
  const HostMatrix output = checkpoint->matrix(Role::output, 0);
  EXPECT_EQ(output.n, 32768);
  EXPECT_EQ(output.k, 64);
  EXPECT_EQ(output.dense_dtype, DType::bf16);
  EXPECT_EQ(checkpoint->vector(Role::ffn_norm, 1).size(), 64u);
}

TEST(Checkpoint, MlxBf16HoldsTheSameWeights) {
  GOLDEN_OR_SKIP(hf_folder, "tiny-v0.3-bf16");
  GOLDEN_OR_SKIP(mlx_folder, "tiny-v0.3-mlx-bf16");
  const auto hf = Checkpoint::open(hf_folder), mlx = Checkpoint::open(mlx_folder);
  EXPECT_EQ(mlx->format(), "MLX BF16");
  for (const TensorInfo& tensor : hf->tensors()) {
    EXPECT_EQ(hf->dequantize(tensor.name).values, mlx->dequantize(tensor.name).values) << tensor.name;
  }
}

TEST(Checkpoint, BothConfigSpellingsAreOneModel) {
  GOLDEN_OR_SKIP(folder, "tiny-nf4-dq");
  const TempDir dir;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    std::filesystem::copy(entry.path(), dir.path());
  std::filesystem::rename(dir.path() / "config.tf5.json", dir.path() / "config.json");
  const auto old_way = Checkpoint::open(folder), new_way = Checkpoint::open(dir.path());
  EXPECT_EQ(new_way->format(), "bitsandbytes NF4 double");
  EXPECT_EQ(old_way->config().rope_theta, 1e6f);
  EXPECT_EQ(new_way->config().rope_theta, 1e6f);
  EXPECT_EQ(old_way->config().head_dim, new_way->config().head_dim);
}

TEST(Checkpoint, ReadsTheDefaultModel) {
  DEFAULT_MODEL_OR_SKIP(path);
  const auto checkpoint = Checkpoint::open(path);
  EXPECT_EQ(checkpoint->format(), "GGUF Q4_1");
  EXPECT_FALSE(checkpoint->has_output());
  EXPECT_EQ(checkpoint->config().vocab_size, 49152);
  EXPECT_EQ(checkpoint->config().rope_theta, 100000.0f);
  EXPECT_EQ(checkpoint->config().eos_ids, std::vector<int32_t>{2});
  ASSERT_NE(checkpoint->tokenizer().gguf_metadata, nullptr);
  EXPECT_EQ(checkpoint->tokenizer().gguf_metadata->at("tokenizer.ggml.merges").size(), 48900u);
  // GGUF's q and k are interleaved already: matrix and file agree row by row.
  const HostMatrix wk = checkpoint->matrix(Role::wk, 7);
  EXPECT_EQ(wk.quant->group, 32);
  EXPECT_EQ(wk.scale_dtype, DType::f16);
  const auto stored = checkpoint->dequantize("blk.7.attn_k.weight");
  for (int64_t n = 0; n < wk.n; ++n) ASSERT_EQ(row_of(wk, n), stored_row(stored, n));
  const HostMatrix table = checkpoint->matrix(Role::tok_embeddings, 0);
  EXPECT_EQ(table.quant->bits, 8);
  EXPECT_EQ(table.quant->code_zero, 128);
}

TEST(Checkpoint, DenseTensorsViewTheFileWhereItAlignsThem) {
  const TempDir dir;
  write_small_model(dir, small_config(), small_tensors());
  const auto checkpoint = Checkpoint::open(dir.path());
  for (const Role role : {Role::wv, Role::wq}) {
    const HostMatrix m = checkpoint->matrix(role, 0);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(m.codes.data()) % sizeof(float), 0u);
  }
}

TEST(Checkpoint, MatrixOutlivesTheCheckpoint) {
  const TempDir dir;
  write_small_model(dir, small_config(), small_tensors());
  const HostMatrix m = Checkpoint::open(dir.path())->matrix(Role::wv, 0);
  EXPECT_EQ(row_of(m, 1)[0], 1.0f);
}

std::string open_fault(const json& config, const std::vector<TestTensor>& tensors) {
  const TempDir dir;
  write_small_model(dir, config, tensors);
  return message_of([&] { Checkpoint::open(dir.path()); });
}

TEST(Checkpoint, TensorFaultsAreNamed) {
  const json config = small_config();
  ASSERT_EQ(open_fault(config, small_tensors()), "");
  auto tensors = small_tensors();
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}});
  EXPECT_EQ(open_fault(config, tensors), "");
  tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {8}});
  EXPECT_THAT(open_fault(config, tensors),
              AllOf(HasSubstr("model.safetensors: tensor model.layers.0.self_attn.q_proj.bias"),
                    HasSubstr("not part of")));
  for (size_t i = 0; i < small_tensors().size(); ++i) {
    tensors = small_tensors();
    const std::string name = tensors[i].name;
    tensors.erase(tensors.begin() + static_cast<ptrdiff_t>(i));
    EXPECT_THAT(open_fault(config, tensors), HasSubstr("tensor " + name + " is missing"));
    tensors = small_tensors();
    tensors[i].shape.back() += 1;
    EXPECT_THAT(open_fault(config, tensors),
                AllOf(HasSubstr("tensor " + name + ": shape is ["), HasSubstr("expected [")));
  }
}

TEST(Checkpoint, OtherPackingsAreRefusedByName) {
  for (const auto& [tensor, library] : {std::pair{"model.layers.0.self_attn.q_proj.qweight", "AWQ or GPTQ"},
                                        {"model.layers.0.mlp.up_proj.SCB", "LLM.int8()"}}) {
    auto tensors = small_tensors();
    tensors.push_back({tensor, {8}});
    EXPECT_THAT(open_fault(small_config(), tensors), AllOf(HasSubstr(tensor), HasSubstr(library)));
  }
}

TEST(Checkpoint, WrongDtypeIsNamed) {
  const TempDir dir;
  dir.write("config.json", small_config().dump());
  std::string bytes = safetensors_of(small_tensors());
  const size_t at = bytes.find("\"dtype\":\"F32\"");  // the first tensor: the embeddings
  bytes.replace(at, 13, "\"dtype\":\"I32\"");
  dir.write("model.safetensors", bytes);
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path()); }),
              HasSubstr("tensor model.embed_tokens.weight: dtype I32 is not supported"));
}

TEST(Checkpoint, NormsThatAreNotFiniteAreRefused) {
  const std::string name = "model.norm.weight";
  for (const float value : {NAN, -INFINITY}) {
    const TempDir dir;
    dir.write("config.json", small_config().dump());
    auto tensors = small_tensors();
    std::stable_partition(tensors.begin(), tensors.end(),
                          [&](const TestTensor& t) { return t.name != name; });
    std::string bytes = safetensors_of(tensors);
    bytes.replace(bytes.size() - 4, 4, bytes_of({value}));
    dir.write("model.safetensors", bytes);
    const auto checkpoint = Checkpoint::open(dir.path());
    EXPECT_THAT(message_of([&] { checkpoint->vector(Role::norm, 0); }),
                HasSubstr("tensor " + name + ": value 7 is not finite"));
  }
}

TEST(Checkpoint, TiedEmbeddings) {
  json config = small_config();
  auto tensors = small_tensors();
  std::erase_if(tensors, [](const TestTensor& t) { return t.name == "lm_head.weight"; });
  const auto has_output = [&] {
    const TempDir dir;
    write_small_model(dir, config, tensors);
    return Checkpoint::open(dir.path())->has_output();
  };
  config["tie_word_embeddings"] = true;
  EXPECT_FALSE(has_output());
  config.erase("tie_word_embeddings");
  EXPECT_FALSE(has_output());
  config["tie_word_embeddings"] = true;
  tensors = small_tensors();  // lm_head holds the same values as the embeddings
  EXPECT_FALSE(has_output());
  config["tie_word_embeddings"] = false;
  EXPECT_TRUE(has_output());
}

// Quantised tables are the same when codes, scales and biases are.
TEST(Checkpoint, TiedQuantisedEmbeddings) {
  json config = small_config();
  config.update({{"hidden_size", 64}, {"head_dim", 4}, {"tie_word_embeddings", true}});
  config["quantization"] = {{"bits", 4}, {"group_size", 64}};
  RawTensors tensors;
  for (TestTensor tensor : small_tensors()) {
    for (int64_t& size : tensor.shape) size = size == 8 ? 64 : size;
    if (tensor.name.ends_with("q_proj.weight")) tensor.shape[0] = 8;
    if (tensor.name.ends_with("o_proj.weight")) tensor.shape[1] = 8;
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    tensors[tensor.name] = {"F32", tensor.shape, bytes_of(std::vector<float>(static_cast<size_t>(count)))};
  }
  const auto quantise = [&](const std::string& module, float scale) {
    tensors[module + ".weight"] = {"U32", {6, 8}, std::string(6 * 8 * 4, '\x21')};
    tensors[module + ".scales"] = {"F32", {6, 1}, bytes_of(std::vector<float>(6, scale))};
    tensors[module + ".biases"] = {"F32", {6, 1}, bytes_of(std::vector<float>(6, -1.0f))};
  };
  const auto open = [&] {
    const TempDir dir;
    dir.write("config.json", config.dump());
    dir.write("model.safetensors", safetensors_of(tensors));
    return Checkpoint::open(dir.path());
  };
  quantise("model.embed_tokens", 0.5f);
  quantise("lm_head", 0.5f);
  EXPECT_FALSE(open()->has_output());
  quantise("lm_head", 0.25f);
  const auto untied = open();
  ASSERT_TRUE(untied->has_output());
  EXPECT_EQ(row_of(untied->matrix(Role::output, 0), 0)[1], 2 * 0.25f - 1);
  for (const char* part : {"weight", "scales", "biases"}) tensors.erase(std::string("lm_head.") + part);
  const auto tied = open();
  EXPECT_FALSE(tied->has_output());
  EXPECT_EQ(row_of(tied->matrix(Role::tok_embeddings, 0), 5)[0], 1 * 0.5f - 1);
}

TEST(Checkpoint, FolderFaultsAreNamed) {
  const TempDir dir;
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path()); }),
              HasSubstr("neither config.json nor params.json"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path() / "absent"); }),
              HasSubstr("absent: no such file"));
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.write("notes.txt", "plain text")); }),
              HasSubstr("notes.txt: is not a GGUF file"));
  dir.write("config.json", "{\"architectures\": [");
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path()); }),
              AllOf(HasSubstr("config.json"), HasSubstr("not valid JSON")));
  dir.write("config.json", R"({"architectures": ["GPT2LMHeadModel"]})");
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path()); }),
              AllOf(HasSubstr(dir.path().string()), HasSubstr("GPT2LMHeadModel")));
  dir.write("config.json", small_config().dump());
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.path()); }), HasSubstr("model.safetensors: cannot open"));
}

TEST(Checkpoint, SmallGguf) {
  const TempDir dir;
  const auto checkpoint = Checkpoint::open(dir.write("m.gguf", small_gguf().bytes()));
  EXPECT_EQ(checkpoint->config().vocab_size, 6);  // from the embedding table: the file does not say
  EXPECT_EQ(checkpoint->format(), "GGUF F32");
  EXPECT_EQ(row_of(checkpoint->matrix(Role::wk, 0), 1)[0], 1.0f);
  GgufBuilder more = small_gguf();
  more.tensor("rope_freqs.weight", {2}, 0, "12345678");
  EXPECT_THAT(message_of([&] { Checkpoint::open(dir.write("m.gguf", more.bytes())); }),
              HasSubstr("tensor rope_freqs.weight is not part of"));
}

// Mistral's own layout: params.json, other names, q and k interleaved already.
TEST(Checkpoint, MistralLayout) {
  const TempDir dir;
  dir.write("params.json", json{{"dim", 8},
                                {"n_layers", 1},
                                {"head_dim", 4},
                                {"hidden_dim", 16},
                                {"n_heads", 2},
                                {"n_kv_heads", 1},
                                {"norm_eps", 1e-5},
                                {"vocab_size", 6},
                                {"rope_theta", 1e6}}
                               .dump());
  const std::string layer = "layers.0.";
  dir.write("consolidated.safetensors", safetensors_of({{"tok_embeddings.weight", {6, 8}},
                                                        {"norm.weight", {8}},
                                                        {"output.weight", {6, 8}},
                                                        {layer + "attention_norm.weight", {8}},
                                                        {layer + "ffn_norm.weight", {8}},
                                                        {layer + "attention.wq.weight", {8, 8}},
                                                        {layer + "attention.wk.weight", {4, 8}},
                                                        {layer + "attention.wv.weight", {4, 8}},
                                                        {layer + "attention.wo.weight", {8, 8}},
                                                        {layer + "feed_forward.w1.weight", {16, 8}},
                                                        {layer + "feed_forward.w2.weight", {8, 16}},
                                                        {layer + "feed_forward.w3.weight", {16, 8}}}));
  const auto checkpoint = Checkpoint::open(dir.path());
  EXPECT_EQ(checkpoint->format(), "Mistral F32");
  EXPECT_EQ(checkpoint->config().rope_theta, 1e6f);
  for (int64_t n = 0; n < 8; ++n)
    EXPECT_EQ(row_of(checkpoint->matrix(Role::wq, 0), n)[0], static_cast<float>(n));
}

json mlx_config(const json& quantization) {
  json config = small_config();
  config["quantization"] = quantization;
  return config;
}

TEST(Mlx, ConfigFaultsAreNamed) {
  EXPECT_THAT(open_fault(mlx_config({{"bits", 7}, {"group_size", 64}}), small_tensors()),
              HasSubstr("bits 7"));
  EXPECT_THAT(open_fault(mlx_config({{"bits", 4}, {"group_size", 48}}), small_tensors()),
              HasSubstr("group_size 48"));
  EXPECT_THAT(open_fault(mlx_config({{"bits", 4}, {"group_size", 32}, {"mode", "mxfp4"}}), small_tensors()),
              HasSubstr("mode \"mxfp4\""));
  EXPECT_THAT(
      open_fault(
          mlx_config({{"bits", 4}, {"group_size", 64}, {"lm_head", {{"bits", 8}, {"group_size", 32}}}}),
          small_tensors()),
      HasSubstr("lm_head is not quantised in the file"));
  EXPECT_EQ(open_fault(mlx_config({{"bits", 4}, {"group_size", 64}, {"lm_head", false}}), small_tensors()),
            "");
}

// A golden folder with one file's bytes changed.
std::string golden_fault(const std::filesystem::path& folder, const std::string& file,
                         const std::function<void(std::string&)>& change) {
  const TempDir dir;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    std::filesystem::copy(entry.path(), dir.path());
  const auto mapped = MappedFile::open(folder / file);
  std::string bytes(reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size());
  change(bytes);
  dir.write(file, bytes);
  return message_of([&] { Checkpoint::open(dir.path()); });
}

void replace_once(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  ASSERT_EQ(from.size(), to.size());
  text.replace(at, from.size(), to);
}

TEST(Mlx, ShapesAndNamedOverridesAreChecked) {
  GOLDEN_OR_SKIP(folder, "tiny-v0.3-mlx-q4");
  EXPECT_EQ(golden_fault(folder, "config.json", [](std::string&) {}), "");
  // Unnamed modules follow from their shapes, as in mlx_lm.
  EXPECT_EQ(golden_fault(folder, "config.json",
                         [](std::string& text) { replace_once(text, "\"bits\": 4", "\"bits\": 8"); }),
            "");
  EXPECT_THAT(golden_fault(folder, "config.json",
                           [](std::string& text) {
                             json config = json::parse(text);
                             config["quantization"]["lm_head"] = {{"bits", 8}, {"group_size", 64}};
                             text = config.dump();
                           }),
              AllOf(HasSubstr("lm_head.weight"),
                    HasSubstr("has 4 bits, group 64; the config says 8 bits, group 64")));
  EXPECT_THAT(golden_fault(folder, "model.safetensors",
                           [](std::string& text) { replace_once(text, "\"U32\"", "\"F32\""); }),
              HasSubstr("dtype is F32, expected U32"));
}

TEST(Bitsandbytes, StateAndTableAreChecked) {
  GOLDEN_OR_SKIP(folder, "tiny-nf4-dq");
  const auto fault = [&](const std::string& from, const std::string& to) {
    return golden_fault(folder, "model.safetensors",
                        [&](std::string& bytes) { replace_once(bytes, from, to); });
  };
  EXPECT_EQ(fault("nf4", "nf4"), "");
  EXPECT_THAT(fault("\"quant_type\": \"nf4\"", "\"quant_type\": \"fp4\""),
              HasSubstr("quant_type is not \"nf4\""));
  EXPECT_THAT(fault("\"blocksize\": 64", "\"blocksize\": 48"), HasSubstr("blocksize 48 with rows of"));
  EXPECT_THAT(fault("\"blocksize\": 64", "\"blocksize\": 8 "), HasSubstr("blocksize 8 with rows of"));
  EXPECT_THAT(fault("\"blocksize\": 64", "\"blocksize\": 32"), HasSubstr("shape is ["));
  EXPECT_THAT(fault("\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\""),
              HasSubstr("nested_dtype"));
  const float table_entry = 0x1.75f5fep-4f, nf4_entry = 0x1.45f5fep-4f;
  EXPECT_THAT(
      fault({reinterpret_cast<const char*>(&nf4_entry), 4}, {reinterpret_cast<const char*>(&table_entry), 4}),
      HasSubstr("is not bitsandbytes' NF4 table"));
}

}  // namespace
}  // namespace tramontane
