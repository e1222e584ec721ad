#include "tests/weights/builders.h"

#include <unistd.h>

#include <cstring>
#include <fstream>
#include <stdexcept>

namespace tramontane {
namespace fs = std::filesystem;

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "tramontane-test-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("cannot make " + pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  fs::remove_all(path_);
}

fs::path TempDir::write(const std::string& name, const std::string& bytes) const {
  std::ofstream(path_ / name, std::ios::binary) << bytes;
  return path_ / name;
}

std::string le32(uint32_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string le64(uint64_t value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}
std::string gguf_string(const std::string& text) {
  return le64(text.size()) + text;
}

std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return le64(header.size()) + header + data;
}

namespace {

std::string counting_floats(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  std::string data;
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(i) / 8.0f;
    data.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  return data;
}

}  // namespace

std::string safetensors_of(const std::vector<TestTensor>& tensors, const std::string& format) {
  nlohmann::ordered_json header = {{"__metadata__", {{"format", format}}}};
  std::string data;
  for (const TestTensor& tensor : tensors) {
    const std::string values = counting_floats(tensor.shape);
    header[tensor.name] = {{"dtype", "F32"},
                           {"shape", tensor.shape},
                           {"data_offsets", {data.size(), data.size() + values.size()}}};
    data += values;
  }
  return safetensors_bytes(header.dump(), data);
}

std::string safetensors_of(const RawTensors& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    header[name] = {{"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
    data += tensor.bytes;
  }
  return safetensors_bytes(header.dump(), data);
}

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

nlohmann::json small_config() {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 8},
          {"num_hidden_layers", 1},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 1},
          {"intermediate_size", 16},
          {"vocab_size", 6},
          {"tie_word_embeddings", false}};
}

std::vector<TestTensor> small_tensors() {
  const std::string layer = "model.layers.0.";
  return {{"model.embed_tokens.weight", {6, 8}},
          {"model.norm.weight", {8}},
          {"lm_head.weight", {6, 8}},
          {layer + "input_layernorm.weight", {8}},
          {layer + "post_attention_layernorm.weight", {8}},
          {layer + "self_attn.q_proj.weight", {8, 8}},
          {layer + "self_attn.k_proj.weight", {4, 8}},
          {layer + "self_attn.v_proj.weight", {4, 8}},
          {layer + "self_attn.o_proj.weight", {8, 8}},
          {layer + "mlp.gate_proj.weight", {16, 8}},
          {layer + "mlp.up_proj.weight", {16, 8}},
          {layer + "mlp.down_proj.weight", {8, 16}}};
}

void write_small_model(const TempDir& dir, const nlohmann::json& config,
                       const std::vector<TestTensor>& tensors) {
  dir.write("config.json", config.dump());
  dir.write("model.safetensors", safetensors_of(tensors));
}

GgufBuilder& GgufBuilder::raw(const std::string& key, uint32_t type, const std::string& bytes) {
  metadata_ += gguf_string(key) + le32(type) + bytes;
  ++n_keys_;
  return *this;
}
GgufBuilder& GgufBuilder::text(const std::string& key, const std::string& value) {
  return raw(key, 8, gguf_string(value));
}
GgufBuilder& GgufBuilder::u32(const std::string& key, uint32_t value) {
  return raw(key, 4, le32(value));
}
GgufBuilder& GgufBuilder::f32(const std::string& key, float value) {
  return raw(key, 6, {reinterpret_cast<const char*>(&value), sizeof value});
}

GgufBuilder& GgufBuilder::tensor(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                                 const std::string& data, int64_t offset) {
  data_.resize((data_.size() + 31) / 32 * 32, '\0');
  entries_ += gguf_string(name) + le32(static_cast<uint32_t>(shape.size()));
  for (auto size = shape.rbegin(); size != shape.rend(); ++size)
    entries_ += le64(static_cast<uint64_t>(*size));
  entries_ += le32(type) + le64(offset < 0 ? data_.size() : static_cast<uint64_t>(offset));
  data_ += data;
  ++n_tensors_;
  return *this;
}

std::string GgufBuilder::bytes() const {
  std::string file = "GGUF" + le32(version_) + le64(n_tensors_) + le64(n_keys_) + metadata_ + entries_;
  file.resize((file.size() + 31) / 32 * 32, '\0');
  return file + data_;
}

GgufBuilder small_gguf() {
  GgufBuilder file;
  file.text("general.architecture", "llama")
      .u32("llama.block_count", 1)
      .u32("llama.context_length", 64)
      .u32("llama.embedding_length", 8);
  file.u32("llama.feed_forward_length", 16)
      .u32("llama.attention.head_count", 2)
      .u32("llama.attention.head_count_kv", 1);
  file.f32("llama.attention.layer_norm_rms_epsilon", 1e-5f).u32("tokenizer.ggml.eos_token_id", 2);
  const std::vector<TestTensor> tensors = {
      {"token_embd.weight", {6, 8}},      {"output_norm.weight", {8}},
      {"blk.0.attn_norm.weight", {8}},    {"blk.0.ffn_norm.weight", {8}},
      {"blk.0.attn_q.weight", {8, 8}},    {"blk.0.attn_k.weight", {4, 8}},
      {"blk.0.attn_v.weight", {4, 8}},    {"blk.0.attn_output.weight", {8, 8}},
      {"blk.0.ffn_gate.weight", {16, 8}}, {"blk.0.ffn_up.weight", {16, 8}},
      {"blk.0.ffn_down.weight", {8, 16}}};
  for (const TestTensor& tensor : tensors)
    file.tensor(tensor.name, tensor.shape, 0, counting_floats(tensor.shape));
  return file;
}

std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

}  // namespace tramontane
