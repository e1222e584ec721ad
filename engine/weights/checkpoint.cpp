#include "engine/weights/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <stdexcept>
#include <utility>

#include "engine/backend/check.h"
#include "engine/weights/bitsandbytes.h"
#include "engine/weights/gguf.h"
#include "engine/weights/gguf_blocks.h"
#include "engine/weights/mlx.h"
#include "engine/weights/names.h"
#include "engine/weights/safetensors.h"

namespace tramontane {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

// What opening a layout yields: everything but the roles.
struct Opened {
  ModelConfig config;
  GenerationDefaults defaults;
  TokenizerSource tokenizer;
  TensorTable table;
  Naming naming;
  WeightReader read;
  std::string family;            // stands before a bare dtype: "Hugging Face BF16"
  bool output_required = false;  // the config says that the embeddings are not tied
};

// Half-split RoPE rows (a head's first halves, then its second halves) to interleaved pairs:
// row h*d + half*(d/2) + j becomes row h*d + 2j + half. Rows move whole, codes, scales and biases alike.
HostMatrix interleave_heads(const HostMatrix& from, int64_t head_dim) {
  HostMatrix to = from;
  auto owner = std::make_shared<MatrixOwner>();
  const auto move_rows = [&](std::span<const std::byte> source, std::vector<std::byte>& target) {
    const size_t bytes = source.size() / static_cast<size_t>(from.n);
    target.resize(source.size());
    for (int64_t row = 0; row < from.n; ++row) {
      const int64_t head = row / head_dim, half = row % head_dim / (head_dim / 2), j = row % (head_dim / 2);
      const int64_t target_row = head * head_dim + 2 * j + half;
      std::memcpy(target.data() + static_cast<size_t>(target_row) * bytes,
                  source.data() + static_cast<size_t>(row) * bytes, bytes);
    }
  };
  move_rows(from.codes, owner->codes);
  if (!from.scales.empty()) move_rows(from.scales, owner->scales);
  if (!from.biases.empty()) move_rows(from.biases, owner->biases);
  return own_all(std::move(to), std::move(owner));
}

class LoadedCheckpoint final : public Checkpoint {
 public:
  explicit LoadedCheckpoint(Opened opened)
      : table_(std::move(opened.table)), naming_(opened.naming), read_(std::move(opened.read)) {
    config_ = std::move(opened.config);
    generation_defaults_ = opened.defaults;
    tokenizer_ = std::move(opened.tokenizer);
    weight_bytes_ = table_.bytes();
    for (const Role role : {Role::tok_embeddings, Role::norm}) assign(role, 0);
    for (int32_t layer = 0; layer < config_.n_layers; ++layer) {
      for (const Role role : {Role::attention_norm, Role::wq, Role::wk, Role::wv, Role::wo, Role::ffn_norm,
                              Role::w1, Role::w2, Role::w3}) {
        assign(role, layer);
      }
    }
    assign_output(opened.output_required);
    for (const StoredTensor* tensor : table_.unused()) {
      if (!is_ignorable(tensor->name))
        throw std::runtime_error(tensor->where() + " is not part of a " + config_.architecture +
                                 " model, or of a kind that is not supported");
    }
    name_format(opened.family);
  }

  HostMatrix matrix(Role role, int32_t layer) const override {
    HostMatrix m = weight(role, layer).load();
    const bool rotated = role == Role::wq || role == Role::wk;
    return rotated && naming_ == Naming::hugging_face ? interleave_heads(m, config_.head_dim) : m;
  }

  std::vector<float> vector(Role role, int32_t layer) const override { return values(weight(role, layer)); }

  void release_pages() const override { table_.release_pages(); }

  std::vector<TensorInfo> tensors() const override {
    std::vector<TensorInfo> result;
    for (const auto& [key, weight] : weights_) result.push_back(weight.info);
    return result;
  }

  Dequantized dequantize(const std::string& name) const override {
    for (const auto& [key, weight] : weights_) {
      if (weight.info.name == name) return {weight.info.shape, values(weight)};
    }
    throw std::runtime_error("no weight is called " + name + " in this checkpoint");
  }

 private:
  // Layers in order, the model's own tensors (layer -1 and beyond the last) around them: the order of
  // `tensors()`.
  using Key = std::pair<int32_t, Role>;
  static Key key_of(Role role, int32_t layer) {
    if (role == Role::tok_embeddings) return {-1, role};
    if (role == Role::norm || role == Role::output) return {INT32_MAX, role};
    return {layer, role};
  }

  void assign(Role role, int32_t layer) {
    const WeightShape shape = expected_shape(role, config_);
    StoredWeight weight = read_(table_, tensor_name(naming_, role, layer), shape.rows, shape.cols);
    weight.info.role = role_name(role, layer);
    weights_.emplace(key_of(role, layer), std::move(weight));
  }

  // A tied model may still carry the output matrix; the copy is used only where it differs.
  void assign_output(bool required) {
    const std::string name = tensor_name(naming_, Role::output, 0);
    has_output_ = required || table_.has(name);
    if (!has_output_) return;
    assign(Role::output, 0);
    if (config_.tied_embeddings && output_is_embeddings()) {
      weights_.erase(key_of(Role::output, 0));
      has_output_ = false;
    }
  }
  bool output_is_embeddings() const {
    const HostMatrix a = weight(Role::output, 0).load(), b = weight(Role::tok_embeddings, 0).load();
    return a.quant == b.quant && a.dense_dtype == b.dense_dtype && a.scale_dtype == b.scale_dtype &&
           std::ranges::equal(a.codes, b.codes) && std::ranges::equal(a.scales, b.scales) &&
           std::ranges::equal(a.biases, b.biases);
  }

  // The format that most matrices have, counted by matrices.
  void name_format(const std::string& family) {
    std::map<std::string, int> counts;
    for (const auto& [key, weight] : weights_) counts[weight.info.format] += weight.info.shape.size() == 2;
    const auto most = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    format_ = most->first.find(' ') == std::string::npos ? family + " " + most->first : most->first;
  }

  const StoredWeight& weight(Role role, int32_t layer) const {
    const auto found = weights_.find(key_of(role, layer));
    CHECK(found != weights_.end(), "no weight " + role_name(role, layer));
    return found->second;
  }

  static std::vector<float> values(const StoredWeight& weight) {
    const HostMatrix m = weight.load();
    std::vector<float> result(static_cast<size_t>(m.n * m.k));
    for (int64_t row = 0; row < m.n; ++row) {
      dequantize_row(m, row,
                     std::span(result).subspan(static_cast<size_t>(row * m.k), static_cast<size_t>(m.k)));
    }
    return result;
  }

  TensorTable table_;
  Naming naming_;
  WeightReader read_;
  std::map<Key, StoredWeight> weights_;
};

TokenizerSource find_sentencepiece(const fs::path& folder) {
  // The public v0.3 repository holds both of the first two, byte-identical.
  for (const char* name :
       {"tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v2", "tokenizer.model.v1"}) {
    if (fs::is_regular_file(folder / name)) return {folder / name, nullptr};
  }
  return {};
}

// Which of the three that share Hugging Face's names and files; model_config_from_hf has refused the others.
WeightReader hf_reader(const json& config, const std::string& made_by, std::string& family) {
  const bool has_config = config.contains("quantization_config") && config["quantization_config"].is_object();
  if (has_config && config["quantization_config"].contains("quant_method")) return read_bitsandbytes;
  for (const char* key : {"quantization", "quantization_config"}) {
    if (config.contains(key) && !config[key].is_null()) {
      family = "MLX";
      return MlxReader(config[key]);
    }
  }
  family = made_by == "mlx" ? "MLX" : "Hugging Face";
  return read_dense;
}

// Other libraries' packed weights, by the tensors that only they have: a config does not always say.
void refuse_other_packings(const TensorTable& table) {
  for (const StoredTensor* tensor : table.unused()) {
    for (const auto& [suffix, library] : {std::pair{".qweight", "AWQ or GPTQ"}, {".SCB", "LLM.int8()"}}) {
      if (tensor->name.ends_with(suffix))
        throw std::runtime_error(tensor->where() + " belongs to " + library + ", which is not supported");
    }
  }
}

Opened open_hugging_face(const fs::path& folder) {
  const json config = read_json_file(folder / "config.json");
  std::optional<json> generation;
  if (fs::exists(folder / "generation_config.json"))
    generation = read_json_file(folder / "generation_config.json");
  ModelConfig model = model_config_from_hf(config, generation ? &*generation : nullptr);
  SafetensorsFolder files = read_safetensors_folder(folder, "model.safetensors");
  refuse_other_packings(files.table);
  std::string family;
  WeightReader reader = hf_reader(config, files.made_by, family);
  // Without the key the presence of lm_head decides: mlx_lm and transformers disagree about its default.
  const bool output_required = config.contains("tie_word_embeddings") && !model.tied_embeddings;
  return {std::move(model),
          generation ? generation_defaults_from_hf(*generation) : GenerationDefaults{},
          find_sentencepiece(folder),
          std::move(files.table),
          Naming::hugging_face,
          std::move(reader),
          family,
          output_required};
}

Opened open_mistral(const fs::path& folder) {
  ModelConfig model = model_config_from_params(read_json_file(folder / "params.json"));
  SafetensorsFolder files = read_safetensors_folder(folder, "consolidated.safetensors");
  const bool output_required = !model.tied_embeddings;
  return {std::move(model),
          {},
          find_sentencepiece(folder),
          std::move(files.table),
          Naming::mistral,
          read_dense,
          "Mistral",
          output_required};
}

// Old files leave the vocabulary's size out; the embedding table and the token list both tell it.
void add_vocab_size(json& metadata, const json& all, const std::vector<StoredTensor>& tensors) {
  const auto architecture = all.find("general.architecture");
  if (architecture == all.end() || !architecture->is_string()) return;
  const std::string key = architecture->get<std::string>() + ".vocab_size";
  if (metadata.contains(key)) return;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.name == "token_embd.weight" && tensor.shape.size() == 2)
      metadata[key] = static_cast<uint64_t>(tensor.shape[0]);
  }
}

Opened open_gguf(const fs::path& path) {
  GgufFile file = read_gguf(MappedFile::open(path));
  json scalars = json::object(), tokenizer = json::object();
  for (const auto& [key, value] : file.metadata.items()) {
    if (!value.is_array()) scalars[key] = value;
    if (key.starts_with("tokenizer.")) tokenizer[key] = std::move(value);
  }
  add_vocab_size(scalars, file.metadata, file.tensors);
  TensorTable table(path.string());
  for (StoredTensor& tensor : file.tensors) table.add(std::move(tensor));
  return {model_config_from_gguf(scalars),
          {},
          {{}, std::make_shared<const json>(std::move(tokenizer))},
          std::move(table),
          Naming::gguf,
          read_gguf_weight,
          "GGUF",
          false};
}

Opened open_any(const fs::path& path) {
  if (!fs::exists(path)) throw std::runtime_error(path.string() + ": no such file or directory");
  if (!fs::is_directory(path)) return open_gguf(path);
  if (fs::exists(path / "config.json")) return open_hugging_face(path);
  if (fs::exists(path / "params.json")) return open_mistral(path);
  throw std::runtime_error(path.string() + ": holds neither config.json nor params.json");
}

// Config faults name the field; add the place.
std::string with_place(const fs::path& path, const std::string& fault) {
  return fault.find(path.string()) == std::string::npos ? path.string() + ": " + fault : fault;
}

}  // namespace

std::unique_ptr<Checkpoint> Checkpoint::open(const fs::path& path) {
  try {
    return std::make_unique<LoadedCheckpoint>(open_any(path));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(with_place(path, error.what()));
  }
}

}  // namespace tramontane
