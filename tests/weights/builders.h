// Builds small checkpoints in a temporary folder: good ones, and ones that are wrong in exactly one way.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tramontane {

// A folder that goes with the test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path write(const std::string& name, const std::string& bytes) const;

 private:
  std::filesystem::path path_;
};

// 8-byte length, header text, data, exactly as given.
std::string safetensors_bytes(const std::string& header, const std::string& data);
// F32 tensors of the given shapes, every element its own index / 8.
struct TestTensor {
  std::string name;
  std::vector<int64_t> shape;
};
std::string safetensors_of(const std::vector<TestTensor>& tensors, const std::string& format = "pt");

// Tensors with every byte given.
struct RawTensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
};
using RawTensors = std::map<std::string, RawTensor>;
std::string safetensors_of(const RawTensors& tensors);
std::string bytes_of(const std::vector<float>& values);

// A llama-shaped model: dim 8, 1 layer, 2 heads of 4, 1 kv head, hidden 16, vocabulary 6.
nlohmann::json small_config();
std::vector<TestTensor> small_tensors();
// The same as a Hugging Face folder.
void write_small_model(const TempDir& dir, const nlohmann::json& config,
                       const std::vector<TestTensor>& tensors);

// Writes GGUF, little-endian, piece by piece.
class GgufBuilder {
 public:
  explicit GgufBuilder(uint32_t version = 3) : version_(version) {}
  GgufBuilder& text(const std::string& key, const std::string& value);
  GgufBuilder& u32(const std::string& key, uint32_t value);
  GgufBuilder& f32(const std::string& key, float value);
  // A metadata entry whose value bytes are given as they are.
  GgufBuilder& raw(const std::string& key, uint32_t type, const std::string& bytes);
  // shape: slowest first (written reversed); data is placed at the next multiple of 32 unless an offset is
  // given.
  GgufBuilder& tensor(const std::string& name, const std::vector<int64_t>& shape, uint32_t type,
                      const std::string& data, int64_t offset = -1);
  std::string bytes() const;

 private:
  uint32_t version_;
  uint64_t n_keys_ = 0, n_tensors_ = 0;
  std::string metadata_, entries_, data_;
};

std::string le32(uint32_t value);
std::string le64(uint64_t value);
std::string gguf_string(const std::string& text);

// The small model as GGUF, F32 tensors.
GgufBuilder small_gguf();

// The message of the std::runtime_error that `action` throws; "" when it throws none.
std::string message_of(const std::function<void()>& action);

}  // namespace tramontane
