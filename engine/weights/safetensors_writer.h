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

// A tensor to be written: what the header says of it.
struct TensorSpec {
  std::string name;
  std::string dtype;  // the format's spelling: "BF16", "U8"
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
};

// The first bytes of a file that holds these tensors one after the other: length and JSON. `made_by` becomes
// "__metadata__": {"format": made_by}; empty: no metadata.
std::string safetensors_header(const std::vector<TensorSpec>& tensors, const std::string& made_by);

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
