#include "engine/weights/safetensors_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace tramontane {
namespace {

// The header's JSON; ordered, so that data_offsets grow along the file.
std::string header_of(const std::filesystem::path& path, const std::vector<NamedTensorF32>& tensors) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  uint64_t offset = 0;
  for (const NamedTensorF32& tensor : tensors) {
    uint64_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
    if (count != tensor.values.size()) {
      throw std::runtime_error(path.string() + ": tensor " + tensor.name + ": shape has " +
                               std::to_string(count) + " elements, got " +
                               std::to_string(tensor.values.size()) + " values");
    }
    const uint64_t end = offset + tensor.values.size_bytes();
    header[tensor.name] = {{"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors_f32(const std::filesystem::path& path, const std::vector<NamedTensorF32>& tensors) {
  const std::string header = header_of(path, tensors);
  std::filesystem::path temporary = path;
  temporary += ".partial." + std::to_string(::getpid());
  errno = 0;
  std::ofstream out(temporary, std::ios::binary | std::ios::trunc);
  const uint64_t length = header.size();
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
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
