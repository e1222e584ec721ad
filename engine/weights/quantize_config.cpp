#include "engine/weights/quantize_config.h"

#include <charconv>
#include <map>

namespace tramontane {
namespace {

using Json = nlohmann::ordered_json;

// A float as the decimal number that was meant: 1e-05, not 9.999999747378752e-06.
double shortest(float value) {
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  double result = 0;
  std::from_chars(text, end, result);
  return result;
}

// Whether Python takes the value for true.
bool truthy(const Json& value) {
  if (value.is_number()) return value.get<double>() != 0;
  return !value.is_null() && !(value.is_array() && value.empty());
}

void set_bf16(Json& config) {
  // Either spelling: transformers 4 and mlx_lm read torch_dtype, transformers 5 writes dtype.
  if (config.contains("dtype")) config["dtype"] = "bfloat16";
  if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = "bfloat16";
}

Json bitsandbytes_block(QuantizeTarget to) {
  return {{"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", to == QuantizeTarget::fp4 ? "fp4" : "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", nullptr},
          {"llm_int8_threshold", 6.0},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"quant_method", "bitsandbytes"}};
}

std::string mlx_text(Json config, const Json& generation, int group, int bits) {
  if (generation.is_object() && generation.contains("eos_token_id") && truthy(generation["eos_token_id"]))
    config["eos_token_id"] = generation["eos_token_id"];
  config.erase("_name_or_path");
  config.erase("vision_config");
  // mlx_lm reads the top-level key alone and takes 10000 without it; transformers 5 writes it further in.
  if (!config.contains("rope_theta") && config.contains("rope_parameters") &&
      config["rope_parameters"].contains("rope_theta"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"];
  const Json block = {{"group_size", group}, {"bits", bits}, {"mode", "affine"}};
  config["quantization"] = block;
  config["quantization_config"] = block;
  std::map<std::string, Json> sorted;  // the outermost keys only
  for (const auto& [key, value] : config.items()) sorted[key] = value;
  return Json(sorted).dump(4, ' ', true);
}

}  // namespace

Json make_hf_config(const ModelConfig& c, bool tied) {
  const bool mistral = c.architecture == "mistral";
  Json config = {{"architectures", {mistral ? "MistralForCausalLM" : "LlamaForCausalLM"}},
                 {"model_type", mistral ? "mistral" : "llama"},
                 {"hidden_act", "silu"},
                 {"hidden_size", c.dim},
                 {"intermediate_size", c.hidden_dim},
                 {"num_hidden_layers", c.n_layers},
                 {"num_attention_heads", c.n_heads},
                 {"num_key_value_heads", c.n_kv_heads},
                 {"head_dim", c.head_dim},
                 {"vocab_size", c.vocab_size},
                 {"max_position_embeddings", c.max_position},
                 {"rms_norm_eps", shortest(c.norm_eps)},
                 {"rope_theta", shortest(c.rope_theta)},
                 {"tie_word_embeddings", tied},
                 {"torch_dtype", "bfloat16"}};
  if (mistral) {
    config["sliding_window"] = c.sliding_window ? Json(*c.sliding_window) : Json(nullptr);
  } else {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
  }
  config["bos_token_id"] = c.bos_id >= 0 ? Json(c.bos_id) : Json(nullptr);
  config["eos_token_id"] = c.eos_ids.empty()       ? Json(nullptr)
                           : c.eos_ids.size() == 1 ? Json(c.eos_ids.front())
                                                   : Json(c.eos_ids);
  return config;
}

std::string quantized_config_text(Json config, const Json& generation_config, const QuantizeOptions& options,
                                  int bits) {
  switch (options.to) {
    case QuantizeTarget::bf16:
      set_bf16(config);
      return config.dump(2) + "\n";
    case QuantizeTarget::fp4:
    case QuantizeTarget::nf4:
      config["quantization_config"] = bitsandbytes_block(options.to);
      return config.dump(2) + "\n";
    default:
      return mlx_text(std::move(config), generation_config, options.group, bits);
  }
}

}  // namespace tramontane
