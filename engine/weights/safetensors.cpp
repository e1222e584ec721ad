#include "engine/weights/safetensors.h"

#include <array>
#include <cstring>
#include <set>
#include <stdexcept>
#include <utility>

namespace tramontane {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference library's own limit
constexpr int kMaxDepth = 64;

constexpr std::array<std::pair<std::string_view, uint64_t>, 15> kDtypeBytes{{
    {"BOOL", 1},
    {"U8", 1},
    {"I8", 1},
    {"F8_E5M2", 1},
    {"F8_E4M3", 1},
    {"I16", 2},
    {"U16", 2},
    {"F16", 2},
    {"BF16", 2},
    {"I32", 4},
    {"U32", 4},
    {"F32", 4},
    {"F64", 8},
    {"I64", 8},
    {"U64", 8},
}};

uint64_t bytes_of(const std::string& dtype) {
  for (const auto& [name, bytes] : kDtypeBytes) {
    if (name == dtype) return bytes;
  }
  return 0;
}

// A JSON array of non-negative integers; nothing when it is anything else.
std::optional<std::vector<uint64_t>> unsigned_array(const nlohmann::json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) return std::nullopt;
  std::vector<uint64_t> values;
  for (const auto& value : *found) {
    if (!value.is_number_unsigned()) return std::nullopt;
    values.push_back(value.get<uint64_t>());
  }
  return values;
}

StoredTensor read_entry(const std::shared_ptr<const MappedFile>& file, const std::string& name,
                        const nlohmann::json& entry, std::span<const std::byte> data) {
  StoredTensor tensor{name, {}, {}, {}, file};
  const auto fail = [&](const std::string& fault) {
    throw std::runtime_error(tensor.where() + ": " + fault);
  };
  if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string()) fail("has no dtype");
  tensor.dtype = entry["dtype"].get<std::string>();
  uint64_t bytes = bytes_of(tensor.dtype);
  if (bytes == 0) fail("unknown dtype " + tensor.dtype);
  const auto shape = unsigned_array(entry, "shape");
  if (!shape || shape->size() > 8) fail("shape is not a list of at most 8 sizes");
  for (const uint64_t size : *shape) {
    const auto product = checked_product(bytes, size);
    if (!product || size > INT64_MAX) fail("shape is larger than any memory");
    bytes = *product;
    tensor.shape.push_back(static_cast<int64_t>(size));
  }
  const auto offsets = unsigned_array(entry, "data_offsets");
  if (!offsets || offsets->size() != 2) fail("data_offsets is not [begin, end]");
  const uint64_t begin = (*offsets)[0], end = (*offsets)[1];
  if (begin > end || end > data.size()) {
    fail("data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "] reach past the file's " +
         std::to_string(data.size()) + " bytes of data (truncated?)");
  }
  if (end - begin != bytes) {
    fail("dtype and shape ask for " + std::to_string(bytes) + " bytes, data_offsets give " +
         std::to_string(end - begin));
  }
  tensor.bytes = data.subspan(begin, bytes);
  return tensor;
}

// Where the index says each tensor is. File names are plain: a path could lead out of the folder.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const nlohmann::json index = read_json_file(path);
  const auto found = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || found == index.end() || !found->is_object()) {
    throw std::runtime_error(path.string() + ": has no weight_map");
  }
  std::map<std::string, std::string> files;
  for (const auto& [name, file] : found->items()) {
    const std::string text = file.is_string() ? file.get<std::string>() : "";
    if (text.empty() || text.find('/') != std::string::npos || text == "." || text == ".." ||
        text.find('\0') != std::string::npos) {
      throw std::runtime_error(path.string() + ": weight_map of " + name + " is not a file name");
    }
    files.emplace(name, text);
  }
  return files;
}

}  // namespace

nlohmann::json parse_json(std::span<const std::byte> text, const std::string& where, bool unique_keys) {
  std::set<std::string> keys;
  const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    if (depth > kMaxDepth) throw std::runtime_error(where + ": JSON is nested more than 64 levels deep");
    if (unique_keys && depth == 1 && event == nlohmann::json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.insert(key).second) throw std::runtime_error(where + ": " + key + " appears twice");
    }
    return true;
  };
  const auto* begin = reinterpret_cast<const char*>(text.data());
  try {
    return nlohmann::json::parse(begin, begin + text.size(), check);
  } catch (const nlohmann::json::exception& error) {
    throw std::runtime_error(where + ": not valid JSON: " + error.what());
  }
}

nlohmann::json read_json_file(const fs::path& path, size_t max_bytes) {
  const auto file = MappedFile::open(path);
  if (file->bytes().size() > max_bytes) {
    throw std::runtime_error(path.string() + ": has " + std::to_string(file->bytes().size()) +
                             " bytes, expected at most " + std::to_string(max_bytes));
  }
  return parse_json(file->bytes(), path.string(), false);
}

SafetensorsFile read_safetensors(std::shared_ptr<const MappedFile> file) {
  const std::string where = file->path().string();
  const auto bytes = file->bytes();
  uint64_t length = 0;
  if (bytes.size() < sizeof length) throw std::runtime_error(where + ": too short for a safetensors header");
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeader || length > bytes.size() - sizeof length) {
    throw std::runtime_error(where + ": header length " + std::to_string(length) +
                             " does not fit the file of " + std::to_string(bytes.size()) + " bytes (limit " +
                             std::to_string(kMaxHeader) + ")");
  }
  const nlohmann::json header = parse_json(bytes.subspan(sizeof length, length), where, true);
  if (!header.is_object()) throw std::runtime_error(where + ": the header is not a JSON object");
  const auto data = bytes.subspan(sizeof length + length);
  SafetensorsFile result;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      result.tensors.push_back(read_entry(file, name, entry, data));
    } else if (entry.is_object() && entry.contains("format") && entry["format"].is_string()) {
      result.made_by = entry["format"].get<std::string>();
    }
  }
  check_no_overlap(result.tensors);
  return result;
}

SafetensorsFolder read_safetensors_folder(const fs::path& folder, const std::string& single) {
  SafetensorsFolder result{TensorTable(folder.string()), {}};
  const fs::path index_path = folder / (single + ".index.json");
  if (!fs::exists(index_path)) {
    SafetensorsFile file = read_safetensors(MappedFile::open(folder / single));
    for (StoredTensor& tensor : file.tensors) result.table.add(std::move(tensor));
    result.made_by = file.made_by;
    return result;
  }
  const auto listed = read_index(index_path);
  std::map<std::string, std::string> shards;  // to one of their tensors
  for (const auto& [name, shard] : listed) shards.emplace(shard, name);
  for (const auto& [shard, name] : shards) {
    if (!fs::exists(folder / shard)) {
      throw std::runtime_error((folder / shard).string() + ": no such file, " +
                               index_path.filename().string() + " says that it holds tensor " + name);
    }
    SafetensorsFile file = read_safetensors(MappedFile::open(folder / shard));
    result.made_by = file.made_by;
    for (StoredTensor& tensor : file.tensors) {
      const auto found = listed.find(tensor.name);
      if (found == listed.end() || found->second != shard) {
        throw std::runtime_error(tensor.where() + " is not listed for this file in " +
                                 index_path.filename().string());
      }
      result.table.add(std::move(tensor));
    }
  }
  for (const auto& [name, shard] : listed) {
    if (!result.table.has(name)) {
      throw std::runtime_error((folder / shard).string() + ": tensor " + name + " is missing, " +
                               index_path.filename().string() + " lists it");
    }
  }
  return result;
}

}  // namespace tramontane
