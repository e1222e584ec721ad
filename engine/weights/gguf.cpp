#include "engine/weights/gguf.h"

#include <cstring>
#include <set>
#include <stdexcept>

#include "engine/weights/gguf_blocks.h"

namespace tramontane {
namespace {

// GGUF's numbers for metadata types.
enum ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

constexpr uint64_t kMaxTensors = 1 << 20;
constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxElements =
    1 << 24;  // of all arrays together; the largest vocabularies have 2^18 tokens and as many merges
constexpr int kMaxNesting = 4;  // arrays of arrays

// Reads little-endian values off the front of a file; every read is checked against what is left.
class Cursor {
 public:
  explicit Cursor(const MappedFile& file) : where_(file.path().string()), bytes_(file.bytes()) {}

  [[noreturn]] void fail(const std::string& fault) const { throw std::runtime_error(where_ + ": " + fault); }

  template <typename T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::string read_string(const char* what) {
    const auto text = take(read<uint64_t>(what), what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }
  // A count of things that take at least `each` bytes each: bounded by `limit` and by what the file can hold.
  uint64_t read_count(const char* what, uint64_t limit, uint64_t each) {
    const auto count = read<uint64_t>(what);
    if (count > limit || count > left() / each)
      fail(std::string(what) + " is " + std::to_string(count) + ", more than the file can hold or allowed");
    return count;
  }
  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

 private:
  std::span<const std::byte> take(uint64_t size, const char* what) {
    if (size > left()) fail(std::string("ends inside ") + what + " (truncated?)");
    position_ += size;
    return bytes_.subspan(position_ - size, size);
  }

  std::string where_;
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

class MetadataReader {
 public:
  explicit MetadataReader(Cursor& cursor) : cursor_(cursor) {}

  nlohmann::json read_value(const std::string& key, uint32_t type, int nesting = 0) {
    switch (type) {
      case u8:
        return cursor_.read<uint8_t>("a metadata value");
      case i8:
        return cursor_.read<int8_t>("a metadata value");
      case u16:
        return cursor_.read<uint16_t>("a metadata value");
      case i16:
        return cursor_.read<int16_t>("a metadata value");
      case u32:
        return cursor_.read<uint32_t>("a metadata value");
      case i32:
        return cursor_.read<int32_t>("a metadata value");
      case u64:
        return cursor_.read<uint64_t>("a metadata value");
      case i64:
        return cursor_.read<int64_t>("a metadata value");
      case f32:
        return cursor_.read<float>("a metadata value");
      case f64:
        return cursor_.read<double>("a metadata value");
      case boolean:
        return cursor_.read<uint8_t>("a metadata value") != 0;
      case string:
        return cursor_.read_string("a metadata string");
      case array:
        return read_array(key, nesting);
      default:
        cursor_.fail("metadata " + key + ": unknown value type " + std::to_string(type));
    }
  }

 private:
  nlohmann::json read_array(const std::string& key, int nesting) {
    if (nesting == kMaxNesting) cursor_.fail("metadata " + key + ": arrays nested too deep");
    const auto type = cursor_.read<uint32_t>("an array's type");
    const uint64_t count = cursor_.read_count("an array's length", kMaxElements - elements_, 1);
    elements_ += count;
    nlohmann::json values = nlohmann::json::array();
    for (uint64_t i = 0; i < count; ++i) values.push_back(read_value(key, type, nesting + 1));
    return values;
  }

  Cursor& cursor_;
  uint64_t elements_ = 0;
};

struct TensorEntry {
  StoredTensor tensor;
  uint64_t offset = 0, bytes = 0;
};

TensorEntry read_entry(Cursor& cursor, const std::shared_ptr<const MappedFile>& file) {
  TensorEntry entry;
  StoredTensor& tensor = entry.tensor;
  tensor.file = file;
  tensor.name = cursor.read_string("a tensor's name");
  const auto fail = [&](const std::string& fault) {
    throw std::runtime_error(tensor.where() + ": " + fault);
  };
  const auto n_dims = cursor.read<uint32_t>("a tensor's dimensions");
  if (n_dims < 1 || n_dims > 4) fail("has " + std::to_string(n_dims) + " dimensions, expected 1 to 4");
  uint64_t elements = 1;
  for (uint32_t i = 0; i < n_dims; ++i) {
    const auto size = cursor.read<uint64_t>("a tensor's shape");
    const auto product = checked_product(elements, size);
    if (size == 0 || size > INT64_MAX || !product) fail("impossible size " + std::to_string(size));
    elements = *product;
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto type = cursor.read<uint32_t>("a tensor's type");
  entry.offset = cursor.read<uint64_t>("a tensor's offset");
  const GgmlType* known = find_ggml_type(type);
  if (known == nullptr) fail("unknown type number " + std::to_string(type));
  tensor.dtype = known->name;
  if (!known->supported()) fail("type " + tensor.dtype + " is not supported");
  const auto row = static_cast<uint64_t>(tensor.shape.back());
  if (row % known->block != 0) {
    fail("rows of " + std::to_string(row) + " elements are not a multiple of " + tensor.dtype +
         "'s block of " + std::to_string(known->block));
  }
  const auto bytes = checked_product(elements / known->block, known->bytes);
  if (!bytes) fail("shape is larger than any memory");
  entry.bytes = *bytes;
  return entry;
}

uint64_t alignment_of(const nlohmann::json& metadata, const Cursor& cursor) {
  const auto found = metadata.find("general.alignment");
  if (found == metadata.end()) return 32;
  const uint64_t value = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
  if (value == 0 || value > (1 << 20) || (value & (value - 1)) != 0)
    cursor.fail("general.alignment is not a power of two up to 2^20");
  return value;
}

void read_header(Cursor& cursor) {
  const auto magic = cursor.read<uint32_t>("the magic number");
  if (magic != 0x46554747u) cursor.fail("is not a GGUF file");  // "GGUF"
  const auto version = cursor.read<uint32_t>("the version");
  if (version != 2 && version != 3) {
    cursor.fail("GGUF version " + std::to_string(version) +
                " is not supported, expected 2 or 3 (little-endian)");
  }
}

nlohmann::json read_metadata(Cursor& cursor, uint64_t count) {
  nlohmann::json metadata = nlohmann::json::object();
  MetadataReader reader(cursor);
  for (uint64_t i = 0; i < count; ++i) {
    const std::string key = cursor.read_string("a metadata key");
    const auto type = cursor.read<uint32_t>("a metadata type");
    if (metadata.contains(key)) cursor.fail("metadata " + key + " appears twice");
    metadata[key] = reader.read_value(key, type);
  }
  return metadata;
}

}  // namespace

GgufFile read_gguf(std::shared_ptr<const MappedFile> file) {
  Cursor cursor(*file);
  read_header(cursor);
  // The shortest tensor entry is 8 + 4 + 8 + 4 + 8 bytes, the shortest metadata entry 8 + 4 + 1.
  const uint64_t n_tensors = cursor.read_count("the tensor count", kMaxTensors, 32);
  const uint64_t n_keys = cursor.read_count("the metadata count", kMaxKeys, 13);
  GgufFile result;
  result.metadata = read_metadata(cursor, n_keys);
  std::vector<TensorEntry> entries;
  std::set<std::string> names;
  for (uint64_t i = 0; i < n_tensors; ++i) {
    entries.push_back(read_entry(cursor, file));
    if (!names.insert(entries.back().tensor.name).second)
      throw std::runtime_error(entries.back().tensor.where() + " appears twice");
  }
  const uint64_t alignment = alignment_of(result.metadata, cursor);
  const uint64_t start = (cursor.position() + alignment - 1) / alignment * alignment;
  const auto data = file->bytes().subspan(std::min<uint64_t>(start, file->bytes().size()));
  // Tensors lie in order, each at the first aligned place behind the one before, as in ggml's own reader: a
  // type or shape that is not what was written shows itself there, where bytes alone would be read as
  // anything.
  uint64_t next = 0;
  for (TensorEntry& entry : entries) {
    if (entry.offset != next)
      throw std::runtime_error(entry.tensor.where() + ": offset is " + std::to_string(entry.offset) +
                               ", expected " + std::to_string(next) + " behind the tensor before");
    if (entry.offset > data.size() || entry.bytes > data.size() - entry.offset) {
      throw std::runtime_error(entry.tensor.where() + ": " + std::to_string(entry.bytes) +
                               " bytes at offset " + std::to_string(entry.offset) +
                               " reach past the file's " + std::to_string(data.size()) +
                               " bytes of data (truncated?)");
    }
    entry.tensor.bytes = data.subspan(entry.offset, entry.bytes);
    next = (entry.offset + entry.bytes + alignment - 1) / alignment * alignment;
    result.tensors.push_back(std::move(entry.tensor));
  }
  return result;
}

}  // namespace tramontane
