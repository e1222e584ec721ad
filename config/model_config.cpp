#include "config/model_config.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>

namespace tramontane {
namespace {

using nlohmann::json;

// Bounds that no model of this family comes near; with them no product of sizes overflows 64 bits.
constexpr int64_t kMaxDim = 1 << 17, kMaxLayers = 1024, kMaxHeads = 4096, kMaxHeadDim = 1024;
constexpr int64_t kMaxHidden = 1 << 20, kMaxVocab = 1 << 22, kMaxPosition = 1 << 24;

// The value as it would stand in a message: short, on one line, printable whatever the file held.
std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

// Typed access to the keys of one JSON object; a null value counts as absent, as in the reference libraries.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object())
      throw std::runtime_error(where_ + ": expected a JSON object, got " + shown(object));
  }

  [[noreturn]] void fail(const std::string& key, const std::string& fault) const {
    throw std::runtime_error(where_ + ": " + key + " " + fault);
  }
  // The key is there, null or not: a written null can mean something else than silence.
  bool mentions(const std::string& key) const { return object_.contains(key); }
  const json* find(const std::string& key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::optional<int32_t> find_integer(const std::string& key, int64_t low, int64_t high) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    return to_integer(key, *value, low, high);
  }
  int32_t integer(const std::string& key, int64_t low, int64_t high) const {
    const auto value = find_integer(key, low, high);
    if (!value) fail(key, "is missing");
    return *value;
  }
  std::optional<float> find_number(const std::string& key, double low, double high) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number()) fail(key, "is not a number: " + shown(*value));
    const auto number = value->get<double>();
    if (!(number >= low && number <= high)) {
      fail(key, "is " + shown(*value) + ", expected " + shown(low) + " to " + shown(high));
    }
    return static_cast<float>(number);
  }
  std::string text(const std::string& key, const std::string& otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_string()) fail(key, "is not a string: " + shown(*value));
    return value->get<std::string>();
  }
  bool flag(const std::string& key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "is not true or false: " + shown(*value));
    return value->get<bool>();
  }
  // One integer or a list of them (eos_token_id).
  std::optional<std::vector<int32_t>> find_ids(const std::string& key, int64_t high) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    std::vector<int32_t> ids;
    if (!value->is_array()) return std::vector{to_integer(key, *value, 0, high)};
    for (const json& id : *value) ids.push_back(to_integer(key, id, 0, high));
    return ids;
  }

 private:
  int32_t to_integer(const std::string& key, const json& value, int64_t low, int64_t high) const {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT32_MAX});
    if (!fits || value.get<int64_t>() < low || value.get<int64_t>() > high) {
      fail(key, "is " + shown(value) + ", expected an integer from " + std::to_string(low) + " to " +
                    std::to_string(high));
    }
    return value.get<int32_t>();
  }

  const json& object_;
  std::string where_;
};

constexpr double kMinTheta = 1.0, kMaxTheta = 1e12, kMinEps = 0.0, kMaxEps = 0.1;

// What must hold whatever the source; `names` are the source's own spellings of heads, kv heads and head
// size.
void check_heads(const ModelConfig& c, const Fields& fields, const char* heads, const char* kv_heads,
                 const char* head_dim) {
  if (c.n_kv_heads > c.n_heads || c.n_heads % c.n_kv_heads != 0) {
    fields.fail(kv_heads, "is " + std::to_string(c.n_kv_heads) + ", expected a divisor of " + heads + " " +
                              std::to_string(c.n_heads));
  }
  if (c.head_dim < 2 || c.head_dim > kMaxHeadDim || c.head_dim % 2 != 0) {
    fields.fail(head_dim, "is " + std::to_string(c.head_dim) + ", expected an even size up to " +
                              std::to_string(kMaxHeadDim));
  }
}

std::string hf_architecture(const Fields& fields) {
  std::string name = fields.text("model_type", "");
  const json* list = fields.find("architectures");
  if (list != nullptr) {
    if (!list->is_array() || list->size() != 1 || !list->front().is_string()) {
      fields.fail("architectures", "is " + shown(*list) + ", expected one name");
    }
    name = list->front().get<std::string>();
  }
  if (name == "MistralForCausalLM" || name == "mistral") return "mistral";
  if (name == "LlamaForCausalLM" || name == "llama") return "llama";
  fields.fail("architectures",
              "is " + shown(json(name)) + ", expected MistralForCausalLM or LlamaForCausalLM");
}

// rope_type is the newer name of type; only "default" leaves the frequencies as they are.
void check_rope(const Fields& rope) {
  for (const char* key : {"rope_type", "type"}) {
    const std::string type = rope.text(key, "default");
    if (type != "default") rope.fail(key, "is \"" + type + "\", which is not supported (only \"default\")");
  }
  if (rope.find_number("partial_rotary_factor", 0, 1).value_or(1.0f) != 1.0f) {
    rope.fail("partial_rotary_factor", "other than 1 is not supported");
  }
}

// transformers 5 writes rope_parameters, earlier ones a top-level rope_theta and rope_scaling.
float hf_rope_theta(const Fields& fields) {
  if (const json* scaling = fields.find("rope_scaling"))
    check_rope(Fields(*scaling, "config.json: rope_scaling"));
  float theta = fields.find_number("rope_theta", kMinTheta, kMaxTheta).value_or(10000.0f);
  if (const json* parameters = fields.find("rope_parameters")) {
    const Fields rope(*parameters, "config.json: rope_parameters");
    check_rope(rope);
    theta = rope.find_number("rope_theta", kMinTheta, kMaxTheta).value_or(theta);
  }
  return theta;
}

// MistralConfig's window is 4096 unless the file says otherwise, null included; LlamaConfig has none.
std::optional<int32_t> hf_sliding_window(const Fields& fields, const std::string& architecture) {
  const auto window = fields.find_integer("sliding_window", 1, kMaxPosition);
  if (architecture == "llama") {
    if (window) fields.fail("sliding_window", "is not supported for the llama architecture");
    return std::nullopt;
  }
  if (!fields.mentions("sliding_window")) return 4096;
  return window;
}

void check_layer_types(const Fields& fields, bool sliding) {
  const json* types = fields.find("layer_types");
  if (types == nullptr) return;
  const json want = sliding ? "sliding_attention" : "full_attention";
  if (!types->is_array()) fields.fail("layer_types", "is not a list");
  for (const json& type : *types) {
    if (type != want)
      fields.fail("layer_types", "holds " + shown(type) + ", expected " + shown(want) + " in every layer");
  }
}

void check_quantization(const Fields& fields) {
  const json* block = fields.find("quantization_config");
  if (block == nullptr) return;
  const Fields quantization(*block, "config.json: quantization_config");
  const std::string method = quantization.text("quant_method", "");
  if (method.empty() && !quantization.mentions("quant_method")) return;  // MLX writes none
  if (method != "bitsandbytes")
    quantization.fail("quant_method",
                      "is \"" + method + "\", which is not supported (only \"bitsandbytes\")");
  if (quantization.flag("load_in_8bit", false) || quantization.flag("_load_in_8bit", false)) {
    quantization.fail("load_in_8bit", "(LLM.int8) is not supported, only 4 bits");
  }
  const std::string storage = quantization.text("bnb_4bit_quant_storage", "uint8");
  if (storage != "uint8")
    quantization.fail("bnb_4bit_quant_storage", "is \"" + storage + "\", expected \"uint8\"");
}

void refuse_hf_variants(const Fields& fields) {
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (fields.flag(key, false)) fields.fail(key, "true is not supported");
  }
  const std::string activation = fields.text("hidden_act", "silu");
  if (activation != "silu")
    fields.fail("hidden_act", "is \"" + activation + "\", which is not supported (only \"silu\")");
  if (fields.find_number("partial_rotary_factor", 0, 1).value_or(1.0f) != 1.0f) {
    fields.fail("partial_rotary_factor", "other than 1 is not supported");
  }
  check_quantization(fields);
}

void read_hf_ids(ModelConfig& c, const Fields& fields) {
  if (const auto bos = fields.find_integer("bos_token_id", 0, c.vocab_size - 1)) c.bos_id = *bos;
  if (auto eos = fields.find_ids("eos_token_id", c.vocab_size - 1)) c.eos_ids = std::move(*eos);
}

}  // namespace

ModelConfig model_config_from_hf(const json& config, const json* generation_config) {
  const Fields fields(config, "config.json");
  ModelConfig c;
  c.architecture = hf_architecture(fields);
  const bool mistral = c.architecture == "mistral";
  refuse_hf_variants(fields);
  c.dim = fields.integer("hidden_size", 1, kMaxDim);
  c.n_layers = fields.integer("num_hidden_layers", 1, kMaxLayers);
  c.n_heads = fields.integer("num_attention_heads", 1, kMaxHeads);
  c.hidden_dim = fields.integer("intermediate_size", 1, kMaxHidden);
  c.vocab_size = fields.integer("vocab_size", 1, kMaxVocab);
  // The defaults below are transformers' own (MistralConfig, LlamaConfig) for keys that a file leaves out.
  const int32_t silent_kv_heads = mistral && !fields.mentions("num_key_value_heads") ? 8 : c.n_heads;
  c.n_kv_heads = fields.find_integer("num_key_value_heads", 1, kMaxHeads).value_or(silent_kv_heads);
  c.head_dim = fields.find_integer("head_dim", 1, kMaxHeadDim).value_or(c.dim / c.n_heads);
  c.max_position =
      fields.find_integer("max_position_embeddings", 1, kMaxPosition).value_or(mistral ? 131072 : 2048);
  c.norm_eps = fields.find_number("rms_norm_eps", kMinEps, kMaxEps).value_or(1e-6f);
  c.rope_theta = hf_rope_theta(fields);
  c.sliding_window = hf_sliding_window(fields, c.architecture);
  check_layer_types(fields, c.sliding_window.has_value());
  c.tied_embeddings = fields.flag("tie_word_embeddings", false);
  check_heads(c, fields, "num_attention_heads", "num_key_value_heads", "head_dim");
  // Absent ids are transformers' defaults; a written null means none.
  if (!fields.mentions("bos_token_id") && c.vocab_size > 1) c.bos_id = 1;
  if (!fields.mentions("eos_token_id") && c.vocab_size > 2) c.eos_ids = {2};
  read_hf_ids(c, fields);
  if (generation_config != nullptr) read_hf_ids(c, Fields(*generation_config, "generation_config.json"));
  return c;
}

GenerationDefaults generation_defaults_from_hf(const json& generation_config) {
  const Fields fields(generation_config, "generation_config.json");
  GenerationDefaults defaults;
  defaults.temperature = fields.find_number("temperature", 0, 100);
  defaults.top_p = fields.find_number("top_p", std::numeric_limits<float>::min(), 1);
  defaults.repetition_penalty =
      fields.find_number("repetition_penalty", std::numeric_limits<float>::min(), 1e6);
  defaults.top_k = fields.find_integer("top_k", 0, kMaxVocab);
  return defaults;
}

ModelConfig model_config_from_params(const json& params) {
  const Fields fields(params, "params.json");
  for (const char* key :
       {"moe", "vision_encoder", "quantization", "lora", "yarn", "rope_scaling", "llama_4_scaling"}) {
    if (fields.find(key) != nullptr) fields.fail(key, "is not supported");
  }
  if (fields.flag("use_biases", false)) fields.fail("use_biases", "true is not supported");
  const std::string type = fields.text("model_type", "transformer");
  if (type != "transformer") fields.fail("model_type", "is \"" + type + "\", which is not supported");
  ModelConfig c;
  c.architecture = "mistral";
  c.dim = fields.integer("dim", 1, kMaxDim);
  c.n_layers = fields.integer("n_layers", 1, kMaxLayers);
  c.n_heads = fields.integer("n_heads", 1, kMaxHeads);
  c.n_kv_heads = fields.integer("n_kv_heads", 1, kMaxHeads);
  c.head_dim = fields.integer("head_dim", 1, kMaxHeadDim);
  c.hidden_dim = fields.integer("hidden_dim", 1, kMaxHidden);
  c.vocab_size = fields.integer("vocab_size", 1, kMaxVocab);
  // The file has no such key for the 7B models, whose published context is 32768.
  c.max_position = fields.find_integer("max_position_embeddings", 1, kMaxPosition).value_or(32768);
  const auto eps = fields.find_number("norm_eps", kMinEps, kMaxEps);
  const auto theta = fields.find_number("rope_theta", kMinTheta, kMaxTheta);
  if (!eps) fields.fail("norm_eps", "is missing");
  if (!theta) fields.fail("rope_theta", "is missing");
  c.norm_eps = *eps;
  c.rope_theta = *theta;
  c.sliding_window = fields.find_integer("sliding_window", 1, kMaxPosition);
  c.tied_embeddings = fields.flag("tied_embeddings", false);
  c.bos_id = 1;
  c.eos_ids = {2};  // every Mistral SentencePiece vocabulary
  check_heads(c, fields, "n_heads", "n_kv_heads", "head_dim");
  return c;
}

namespace {

void refuse_gguf_variants(const Fields& fields, const std::string& prefix, int32_t head_dim) {
  const std::string scaling = fields.text(prefix + "rope.scaling.type", "none");
  if (scaling != "none")
    fields.fail(prefix + "rope.scaling.type", "is \"" + scaling + "\", which is not supported");
  for (const char* key : {"rope.scaling.factor", "rope.scale_linear"}) {
    const auto factor = fields.find_number(prefix + key, -1e9, 1e9).value_or(1.0f);
    if (factor != 1.0f && factor != 0.0f) fields.fail(prefix + key, "other than 1 is not supported");
  }
  if (fields.find_integer(prefix + "expert_count", 0, INT32_MAX).value_or(0) != 0) {
    fields.fail(prefix + "expert_count", "says a mixture of experts, which is not supported");
  }
  for (const char* key : {"attention.scale", "logit_scale", "residual_scale", "embedding_scale"}) {
    if (fields.find(prefix + key) != nullptr) fields.fail(prefix + key, "is not supported");
  }
  if (!fields.flag(prefix + "attention.causal", true))
    fields.fail(prefix + "attention.causal", "false is not supported");
  for (const char* key : {"rope.dimension_count", "attention.value_length"}) {
    const auto size = fields.find_integer(prefix + key, 1, kMaxHeadDim).value_or(head_dim);
    if (size != head_dim) {
      fields.fail(prefix + key,
                  "is " + std::to_string(size) + ", expected the head size " + std::to_string(head_dim));
    }
  }
}

}  // namespace

ModelConfig model_config_from_gguf(const json& metadata) {
  const Fields fields(metadata, "GGUF metadata");
  ModelConfig c;
  c.architecture = fields.text("general.architecture", "");
  if (c.architecture != "llama" && c.architecture != "mistral") {
    fields.fail("general.architecture", "is " + shown(json(c.architecture)) + ", expected llama or mistral");
  }
  if (fields.find_integer("split.count", 0, INT32_MAX).value_or(0) > 1) {
    fields.fail("split.count", "says a model in several files, which is not supported (merge them first)");
  }
  const std::string p = c.architecture + ".";
  c.dim = fields.integer(p + "embedding_length", 1, kMaxDim);
  c.n_layers = fields.integer(p + "block_count", 1, kMaxLayers);
  c.n_heads = fields.integer(p + "attention.head_count", 1, kMaxHeads);
  c.n_kv_heads = fields.find_integer(p + "attention.head_count_kv", 1, kMaxHeads).value_or(c.n_heads);
  c.head_dim = fields.find_integer(p + "attention.key_length", 1, kMaxHeadDim).value_or(c.dim / c.n_heads);
  c.hidden_dim = fields.integer(p + "feed_forward_length", 1, kMaxHidden);
  c.vocab_size = fields.integer(p + "vocab_size", 1, kMaxVocab);
  c.max_position = fields.integer(p + "context_length", 1, kMaxPosition);
  c.rope_theta = fields.find_number(p + "rope.freq_base", kMinTheta, kMaxTheta).value_or(10000.0f);
  const auto eps = fields.find_number(p + "attention.layer_norm_rms_epsilon", kMinEps, kMaxEps);
  if (!eps) fields.fail(p + "attention.layer_norm_rms_epsilon", "is missing");
  c.norm_eps = *eps;
  c.sliding_window = fields.find_integer(p + "attention.sliding_window", 0, kMaxPosition);
  if (c.sliding_window == 0) c.sliding_window.reset();
  check_heads(c, fields, "attention.head_count", "attention.head_count_kv", "attention.key_length");
  refuse_gguf_variants(fields, p, c.head_dim);
  c.bos_id = fields.find_integer("tokenizer.ggml.bos_token_id", 0, c.vocab_size - 1).value_or(-1);
  for (const char* key : {"eos_token_id", "eot_token_id"}) {
    const auto id = fields.find_integer(std::string("tokenizer.ggml.") + key, 0, c.vocab_size - 1);
    if (id && (c.eos_ids.empty() || c.eos_ids.front() != *id)) c.eos_ids.push_back(*id);
  }
  return c;
}

}  // namespace tramontane
