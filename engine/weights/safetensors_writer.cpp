#include "engine/weights/safetensors_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace tramontane {
namespace {

std::vector<TensorSpec> specs_of(const std::filesystem::path& path,
                                 const std::vector<NamedTensorF32>& tensors) {
  std::vector<TensorSpec> specs;
  for (const NamedTensorF32& tensor : tensors) {
    uint64_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
    if (count != tensor.values.size()) {
      throw std::runtime_error(path.string() + ": tensor " + tensor.name + ": shape has " +
                               std::to_string(count) + " elements, got " +
                               std::to_string(tensor.values.size()) + " values");
    }
    specs.push_back({tensor.name, "F32", tensor.shape, tensor.values.size_bytes()});
  }
  return specs;
}

}  // namespace

std::string safetensors_header(const std::vector<TensorSpec>& tensors, const std::string& made_by) {
  // Ordered, so that data_offsets grow along the file.
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!made_by.empty()) header["__metadata__"] = {{"format", made_by}};
  uint64_t offset = 0;
  for (const TensorSpec& tensor : tensors) {
    const uint64_t end = offset + tensor.bytes;
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string json = header.dump();
  json.resize((json.size() + 7) / 8 * 8, ' ');
  const uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json;
}

void write_safetensors_f32(const std::filesystem::path& path, const std::vector<NamedTensorF32>& tensors) {
  const std::string header = safetensors_header(specs_of(path, tensors), "");
  std::filesystem::path temporary = path;
  temporary += ".partial." + std::to_string(::getpid());
  errno = 0;
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  out.write(header.data(), static_cast<std::streamsize>(header.size()));
  for (const NamedTensorF32& tensor : tensors) {
    out.write(reinterpret_cast<const char*>(tensor.values.data()),
              static_cast<std::streamsize>(tensor.values.size_bytes()));
  }
  out.close();
  std::error_code error;
  if (out) {
    std::filesystem::rename(temporary, path, error);
    if (!error) return;
  }
  const std::string reason = error ? error.message() : std::strerror(errno);
  std::filesystem::remove(temporary, error);
  throw std::runtime_error(path.string() + ": cannot write: " + reason);
}

}  // namespace tramontane
