// Writes small safetensors files: what `inspect --dequantize` and `logits` hand to other programs. Any
// thread. Format: 8-byte little-endian header length, JSON header padded with spaces to a multiple of 8, then
// the tensors' bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace tramontane {

struct NamedTensorF32 {
  std::string name;
  std::vector<int64_t> shape;     // the product is values.size()
  std::span<const float> values;  // row-major; not owned
};

// Writes the tensors in the given order through a temporary file beside `path`, renamed at the end: a reader
// never sees half a file. Throws std::runtime_error naming the file when it cannot be written or a shape does
// not fit its values.
void write_safetensors_f32(const std::filesystem::path& path, const std::vector<NamedTensorF32>& tensors);

}  // namespace tramontane
