// config.json in both spellings, params.json and GGUF metadata: what is read, what is assumed, what is
// refused by name.
#include "config/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <ostream>

#include "tests/support/golden.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json mistral_7b() {
  return json::parse(
      R"({"architectures": ["MistralForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
    "sliding_window": null, "max_position_embeddings": 32768, "torch_dtype": "bfloat16", "tie_word_embeddings": false,
    "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2})");
}

json without(json config, const std::string& key) {
  config.erase(key);
  return config;
}
json with(json config, const std::string& key, const json& value) {
  config[key] = value;
  return config;
}

TEST(HfConfig, Mistral7B) {
  const ModelConfig c = model_config_from_hf(mistral_7b(), nullptr);
  EXPECT_EQ(c.architecture, "mistral");
  EXPECT_EQ(c.dim, 4096);
  EXPECT_EQ(c.n_layers, 32);
  EXPECT_EQ(c.n_heads, 32);
  EXPECT_EQ(c.n_kv_heads, 8);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.hidden_dim, 14336);
  EXPECT_EQ(c.vocab_size, 32768);
  EXPECT_EQ(c.max_position, 32768);
  EXPECT_EQ(c.rope_theta, 1e6f);
  EXPECT_EQ(c.norm_eps, 1e-5f);
  EXPECT_EQ(c.sliding_window, std::nullopt);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_EQ(c.eos_ids, std::vector<int32_t>{2});
}

TEST(HfConfig, NewerSpelling) {
  json config = without(without(mistral_7b(), "rope_theta"), "torch_dtype");
  config["dtype"] = "bfloat16";
  config["rope_parameters"] = {{"rope_theta", 5e5}, {"rope_type", "default"}};
  EXPECT_EQ(model_config_from_hf(config, nullptr).rope_theta, 5e5f);
}

TEST(HfConfig, HeadDim) {
  EXPECT_EQ(model_config_from_hf(with(mistral_7b(), "head_dim", nullptr), nullptr).head_dim, 128);
  EXPECT_EQ(model_config_from_hf(with(mistral_7b(), "head_dim", 64), nullptr).head_dim, 64);
}

TEST(HfConfig, MistralDefaultsOfAbsentKeys) {
  json config = mistral_7b();
  for (const char* key :
       {"num_key_value_heads", "rms_norm_eps", "rope_theta", "sliding_window", "max_position_embeddings",
        "tie_word_embeddings", "hidden_act", "bos_token_id", "eos_token_id", "torch_dtype"}) {
    config.erase(key);
  }
  const ModelConfig c = model_config_from_hf(config, nullptr);
  EXPECT_EQ(c.n_kv_heads, 8);
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_EQ(c.rope_theta, 10000.0f);
  EXPECT_EQ(c.sliding_window, 4096);
  EXPECT_EQ(c.max_position, 131072);
  EXPECT_FALSE(c.tied_embeddings);
  EXPECT_EQ(c.bos_id, 1);
  EXPECT_EQ(c.eos_ids, std::vector<int32_t>{2});
}

TEST(HfConfig, LlamaDefaultsOfAbsentKeys) {
  json config = with(mistral_7b(), "architectures", {"LlamaForCausalLM"});
  for (const char* key :
       {"num_key_value_heads", "rms_norm_eps", "rope_theta", "sliding_window", "max_position_embeddings"})
    config.erase(key);
  const ModelConfig c = model_config_from_hf(config, nullptr);
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.n_kv_heads, 32);
  EXPECT_EQ(c.norm_eps, 1e-6f);
  EXPECT_EQ(c.rope_theta, 10000.0f);
  EXPECT_EQ(c.sliding_window, std::nullopt);
  EXPECT_EQ(c.max_position, 2048);
}

TEST(HfConfig, GenerationConfigOverridesEos) {
  const json generation = {
      {"eos_token_id", {2, 32000}}, {"bos_token_id", 3}, {"temperature", 0.7}, {"top_p", 0.9}, {"top_k", 40},
      {"repetition_penalty", 1.1}};
  const ModelConfig c = model_config_from_hf(mistral_7b(), &generation);
  EXPECT_EQ(c.eos_ids, (std::vector<int32_t>{2, 32000}));
  EXPECT_EQ(c.bos_id, 3);
  const GenerationDefaults defaults = generation_defaults_from_hf(generation);
  EXPECT_EQ(defaults.temperature, 0.7f);
  EXPECT_EQ(defaults.top_p, 0.9f);
  EXPECT_EQ(defaults.top_k, 40);
  EXPECT_EQ(defaults.repetition_penalty, 1.1f);
  EXPECT_EQ(generation_defaults_from_hf(json::object()).temperature, std::nullopt);
}

TEST(HfConfig, EosMayBeAListAndNullMeansNone) {
  EXPECT_EQ(model_config_from_hf(with(mistral_7b(), "eos_token_id", {5, 6}), nullptr).eos_ids,
            (std::vector<int32_t>{5, 6}));
  EXPECT_TRUE(model_config_from_hf(with(mistral_7b(), "eos_token_id", nullptr), nullptr).eos_ids.empty());
}

TEST(HfConfig, GoldenSpellingsAgree) {
  for (const char* model : {"tiny-nf4-dq", "tiny-v0.2-fp4"}) {
    const auto folder = find_golden(model);
    if (!folder) continue;
    std::ifstream classic(*folder / "config.json"), newer(*folder / "config.tf5.json");
    const ModelConfig a = model_config_from_hf(json::parse(classic), nullptr),
                      b = model_config_from_hf(json::parse(newer), nullptr);
    EXPECT_EQ(a.rope_theta, 1e6f);
    EXPECT_EQ(a.rope_theta, b.rope_theta);
    EXPECT_EQ(a.head_dim, b.head_dim);
    EXPECT_EQ(a.sliding_window, b.sliding_window);
    EXPECT_EQ(a.eos_ids, b.eos_ids);
    EXPECT_EQ(a.max_position, b.max_position);
  }
}

template <typename Read>
std::string fault_of(Read read) {
  try {
    read();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

struct Refusal {
  std::string name;
  std::string key;
  json value;
  std::string expected;
};
// How GoogleTest shows a case.
[[maybe_unused]] std::ostream& operator<<(std::ostream& out, const Refusal& test) {
  return out << test.name;
}
class HfRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(HfRefusal, IsNamed) {
  const json config = with(mistral_7b(), GetParam().key, GetParam().value);
  const std::string message = fault_of([&] { model_config_from_hf(config, nullptr); });
  EXPECT_THAT(message, HasSubstr("config.json"));
  EXPECT_THAT(message, HasSubstr(GetParam().expected));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    All, HfRefusal,
    testing::Values(
        Refusal{"architecture", "architectures", json::array({"MixtralForCausalLM"}), "MixtralForCausalLM"},
        Refusal{"two_architectures", "architectures", json::array({"a", "b"}), "architectures is"},
        Refusal{
            "rope_scaling", "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}, "rope_type is \"yarn\""},
        Refusal{
            "rope_scaling_old", "rope_scaling", {{"type", "linear"}, {"factor", 4}}, "type is \"linear\""},
        Refusal{"rope_parameters", "rope_parameters", {{"rope_type", "llama3"}}, "rope_type is \"llama3\""},
        Refusal{
            "partial_rotary", "rope_parameters", {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
        Refusal{"attention_bias", "attention_bias", true, "attention_bias true"},
        Refusal{"mlp_bias", "mlp_bias", true, "mlp_bias true"},
        Refusal{"activation", "hidden_act", "gelu", "hidden_act is \"gelu\""},
        Refusal{"awq", "quantization_config", {{"quant_method", "awq"}}, "quant_method is \"awq\""},
        Refusal{"gptq", "quantization_config", {{"quant_method", "gptq"}}, "quant_method is \"gptq\""},
        Refusal{"int8",
                "quantization_config",
                {{"quant_method", "bitsandbytes"}, {"load_in_8bit", true}},
                "LLM.int8"},
        Refusal{"storage",
                "quantization_config",
                {{"quant_method", "bitsandbytes"}, {"bnb_4bit_quant_storage", "bfloat16"}},
                "bnb_4bit_quant_storage"},
        Refusal{"layer_types", "layer_types", json::array({"full_attention", "sliding_attention"}),
                "layer_types holds"},
        Refusal{"zero_layers", "num_hidden_layers", 0, "num_hidden_layers is 0, expected an integer from 1"},
        Refusal{"negative", "hidden_size", -4096, "hidden_size is -4096"},
        Refusal{"huge", "vocab_size", 1ull << 40, "vocab_size is 1099511627776"},
        Refusal{"larger_than_64_bits", "vocab_size", UINT64_MAX, "vocab_size is 18446744073709551615"},
        Refusal{"fraction", "hidden_size", 4096.5, "hidden_size is 4096.5"},
        Refusal{"text", "hidden_size", "4096", "hidden_size is \"4096\""},
        Refusal{"null_size", "hidden_size", nullptr, "hidden_size is missing"},
        Refusal{"odd_head", "head_dim", 127, "head_dim is 127, expected an even size"},
        Refusal{"kv_heads", "num_key_value_heads", 5, "num_key_value_heads is 5, expected a divisor"},
        Refusal{"more_kv_heads", "num_key_value_heads", 64, "num_key_value_heads is 64"},
        Refusal{"theta", "rope_theta", -1.0, "rope_theta is -1.0"},
        Refusal{"eps", "rms_norm_eps", "small", "rms_norm_eps is not a number"},
        Refusal{"eos_out_of_range", "eos_token_id", 32768, "eos_token_id is 32768"},
        Refusal{"window", "sliding_window", 0, "sliding_window is 0"}),
    [](const auto& test) { return test.param.name; });

TEST(HfConfig, OtherFaults) {
  EXPECT_THAT(fault_of([] { model_config_from_hf(json::array(), nullptr); }),
              HasSubstr("expected a JSON object"));
  EXPECT_THAT(fault_of([] { model_config_from_hf(without(mistral_7b(), "hidden_size"), nullptr); }),
              HasSubstr("hidden_size is missing"));
  const json llama = with(with(mistral_7b(), "architectures", {"LlamaForCausalLM"}), "sliding_window", 4096);
  EXPECT_THAT(fault_of([&] { model_config_from_hf(llama, nullptr); }),
              HasSubstr("sliding_window is not supported for the llama"));
  EXPECT_THAT(fault_of([] {
                generation_defaults_from_hf({{"top_p", 1.5}});
              }),
              HasSubstr("generation_config.json: top_p is 1.5"));
}

TEST(ParamsConfig, MistralsOwn) {
  const json params = {{"dim", 4096},         {"n_layers", 32},      {"head_dim", 128},
                       {"hidden_dim", 14336}, {"n_heads", 32},       {"n_kv_heads", 8},
                       {"norm_eps", 1e-5},    {"vocab_size", 32768}, {"rope_theta", 1e6}};
  const ModelConfig c = model_config_from_params(params);
  EXPECT_EQ(c.hidden_dim, 14336);
  EXPECT_EQ(c.rope_theta, 1e6f);
  EXPECT_EQ(c.max_position, 32768);
  EXPECT_EQ(c.sliding_window, std::nullopt);
  EXPECT_THAT(fault_of([&] {
                model_config_from_params(with(params, "moe", {{"num_experts", 8}}));
              }),
              HasSubstr("params.json: moe is not supported"));
  EXPECT_THAT(fault_of([&] { model_config_from_params(without(params, "rope_theta")); }),
              HasSubstr("rope_theta is missing"));
}

json smollm() {
  return {{"general.architecture", "llama"},
          {"llama.block_count", 30},
          {"llama.context_length", 8192},
          {"llama.embedding_length", 576},
          {"llama.feed_forward_length", 1536},
          {"llama.attention.head_count", 9},
          {"llama.attention.head_count_kv", 3},
          {"llama.rope.freq_base", 100000.0},
          {"llama.attention.layer_norm_rms_epsilon", 1e-5},
          {"llama.vocab_size", 49152},
          {"llama.rope.dimension_count", 64},
          {"tokenizer.ggml.bos_token_id", 1},
          {"tokenizer.ggml.eos_token_id", 2}};
}

TEST(GgufConfig, SmolLM) {
  const ModelConfig c = model_config_from_gguf(smollm());
  EXPECT_EQ(c.architecture, "llama");
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.n_kv_heads, 3);
  EXPECT_EQ(c.rope_theta, 100000.0f);
  EXPECT_EQ(c.max_position, 8192);
  EXPECT_EQ(c.eos_ids, std::vector<int32_t>{2});
  EXPECT_EQ(model_config_from_gguf(with(smollm(), "tokenizer.ggml.eot_token_id", 7)).eos_ids,
            (std::vector<int32_t>{2, 7}));
}

TEST(GgufConfig, RefusalsAreNamed) {
  const auto fault = [](const std::string& key, const json& value) {
    return fault_of([&] { model_config_from_gguf(with(smollm(), key, value)); });
  };
  EXPECT_THAT(fault("general.architecture", "qwen2"), HasSubstr("general.architecture is \"qwen2\""));
  EXPECT_THAT(fault("llama.rope.scaling.type", "yarn"), HasSubstr("llama.rope.scaling.type is \"yarn\""));
  EXPECT_THAT(fault("llama.rope.scaling.factor", 4.0), HasSubstr("llama.rope.scaling.factor"));
  EXPECT_THAT(fault("llama.expert_count", 8), HasSubstr("mixture of experts"));
  EXPECT_THAT(fault("llama.rope.dimension_count", 32), HasSubstr("llama.rope.dimension_count is 32"));
  EXPECT_THAT(fault("llama.attention.value_length", 32), HasSubstr("llama.attention.value_length is 32"));
  EXPECT_THAT(fault("llama.attention.head_count", 7),
              HasSubstr("attention.head_count_kv is 3, expected a divisor"));
  EXPECT_THAT(fault("split.count", 3), HasSubstr("split.count"));
  EXPECT_THAT(fault("llama.attention.causal", false), HasSubstr("llama.attention.causal"));
  EXPECT_THAT(fault_of([] { model_config_from_gguf(without(smollm(), "llama.block_count")); }),
              HasSubstr("llama.block_count is missing"));
}

}  // namespace
}  // namespace tramontane
