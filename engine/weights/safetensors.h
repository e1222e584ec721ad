// Reads safetensors files and sharded sets. Loading thread only.
// Format (https://huggingface.co/docs/safetensors): u64 little-endian header length N, N bytes of JSON
// {name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__": {...}}, then the data; offsets count
// from the end of the header.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

struct SafetensorsFile {
  std::vector<StoredTensor> tensors;
  std::string made_by;  // "__metadata__".format: "pt", "mlx"; empty when absent
};

// Checks the whole header: sizes, dtypes, ranges, overlaps, duplicate names. Throws std::runtime_error naming
// file and tensor.
SafetensorsFile read_safetensors(std::shared_ptr<const MappedFile> file);

// The tensors of `folder`: those that model.safetensors.index.json lists, else the file `single`
// ("model.safetensors"). A missing shard, a listed tensor that its shard does not hold and a held tensor that
// is not listed are errors.
struct SafetensorsFolder {
  TensorTable table;
  std::string made_by;
};
SafetensorsFolder read_safetensors_folder(const std::filesystem::path& folder, const std::string& single);

// A JSON file from outside: at most `max_bytes`, at most 64 levels deep. Throws std::runtime_error naming
// file and fault.
nlohmann::json read_json_file(const std::filesystem::path& path, size_t max_bytes = 64 << 20);
// Likewise from memory; duplicate keys of the outermost object are refused when `unique_keys`.
nlohmann::json parse_json(std::span<const std::byte> text, const std::string& where, bool unique_keys);

}  // namespace tramontane
