#include "engine/weights/checkpoint_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine/backend/check.h"

namespace tramontane {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw std::runtime_error(path.string() + ": " + what + ": " + std::strerror(errno));
}

void write_at(int file, std::span<const std::byte> bytes, uint64_t offset, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t done = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail(path, "cannot write");
    bytes = bytes.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
}

// Renaming is only atomic for the data that has reached the disk.
void sync_path(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(path, "cannot open");
  const int result = ::fsync(file);
  ::close(file);
  if (result != 0) fail(path, "cannot write");
}

size_t element_bytes(const TensorSpec& tensor) {
  return tensor.dtype == "F32" || tensor.dtype == "U32" ? 4 : tensor.dtype == "U8" ? 1 : 2;
}

}  // namespace

CheckpointWriter::CheckpointWriter(fs::path folder, const std::vector<TensorSpec>& tensors,
                                   CheckpointLayout layout)
    : folder_(std::move(folder)), layout_(std::move(layout)) {
  if (!folder_.has_filename()) folder_ = folder_.parent_path();  // "models/q4/"
  if (folder_.empty()) throw std::runtime_error("the folder to write has no name");
  if (fs::symlink_status(folder_).type() != fs::file_type::not_found)
    throw std::runtime_error(folder_.string() + ": exists already; name a new folder");
  partial_ = folder_;
  partial_ += ".partial." + std::to_string(::getpid());
  plan(tensors);
  check_space();
  std::error_code error;
  created_ = fs::create_directory(partial_, error);
  if (!created_) {
    throw std::runtime_error(partial_.string() +
                             ": cannot create: " + (error ? error.message() : "exists already"));
  }
  try {
    create_shards();
  } catch (...) {
    discard();
    throw;
  }
}

CheckpointWriter::~CheckpointWriter() {
  discard();
}

void CheckpointWriter::discard() noexcept {
  for (const int file : files_) ::close(file);
  files_.clear();
  std::error_code ignored;
  if (created_) fs::remove_all(partial_, ignored);
  created_ = false;
}

// Files fill up in the order given; a tensor larger than a file's limit gets a file of its own. Within a file
// the wider elements come first, so that all are aligned (as the safetensors library does).
void CheckpointWriter::plan(const std::vector<TensorSpec>& tensors) {
  uint64_t filled = 0;
  for (const TensorSpec& tensor : tensors) {
    if (shards_.empty() || filled + tensor.bytes > layout_.shard_bytes) {
      shards_.emplace_back();
      filled = 0;
    }
    shards_.back().push_back(tensor);
    filled += tensor.bytes;
    total_bytes_ += tensor.bytes;
  }
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    std::ranges::stable_sort(shards_[shard], std::ranges::greater{}, element_bytes);
    uint64_t offset = safetensors_header(shards_[shard], layout_.made_by).size();
    for (const TensorSpec& tensor : shards_[shard]) {
      const bool added = places_.emplace(tensor.name, Place{shard, offset, tensor.bytes}).second;
      CHECK(added, "tensor " + tensor.name + " is planned twice");
      offset += tensor.bytes;
    }
  }
}

void CheckpointWriter::check_space() const {
  const fs::path parent = folder_.has_parent_path() ? folder_.parent_path() : ".";
  std::error_code error;
  const fs::space_info space = fs::space(parent, error);
  if (error) throw std::runtime_error(parent.string() + ": " + error.message());
  if (space.available < total_bytes_) {
    throw std::runtime_error(parent.string() + ": " + std::to_string(total_bytes_) +
                             " bytes are needed, the disk has " + std::to_string(space.available) + " left");
  }
}

void CheckpointWriter::create_shards() {
  for (size_t shard = 0; shard < shards_.size(); ++shard) {
    const fs::path path = partial_ / shard_name(shard);
    const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (file < 0) fail(path, "cannot create");
    files_.push_back(file);
    const std::string header = safetensors_header(shards_[shard], layout_.made_by);
    write_at(file, std::as_bytes(std::span(header)), 0, path);
    uint64_t size = header.size();
    for (const TensorSpec& tensor : shards_[shard]) size += tensor.bytes;
    if (::ftruncate(file, static_cast<off_t>(size)) != 0) fail(path, "cannot extend");
  }
}

std::string CheckpointWriter::shard_name(size_t shard) const {
  if (shards_.size() == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", shard + 1, shards_.size());
  return name;
}

void CheckpointWriter::write(const std::string& name, std::span<const std::byte> bytes) {
  const auto found = places_.find(name);
  CHECK(found != places_.end() && !found->second.written,
        "tensor " + name + " is not planned, or written twice");
  Place& place = found->second;
  CHECK(bytes.size() == place.bytes, "tensor " + name + " has another size than planned");
  write_at(files_[place.shard], bytes, place.offset, partial_ / shard_name(place.shard));
  place.written = true;
}

void CheckpointWriter::write_file(const std::string& name, std::span<const std::byte> bytes) {
  const fs::path path = partial_ / name;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (file < 0) fail(path, "cannot create");
  files_.push_back(file);
  write_at(file, bytes, 0, path);
}

void CheckpointWriter::write_text(const std::string& name, const std::string& text) {
  write_file(name, std::as_bytes(std::span(text)));
}

// Names sorted, four spaces: as mlx_lm writes it.
std::string CheckpointWriter::index_text() const {
  nlohmann::ordered_json index;
  index["metadata"] = {{"total_size", total_bytes_}, {"total_parameters", layout_.parameters}};
  for (const auto& [name, place] : places_) index["weight_map"][name] = shard_name(place.shard);
  return index.dump(4);
}

void CheckpointWriter::finish(const std::string& config) {
  for (const auto& [name, place] : places_) CHECK(place.written, "tensor " + name + " was never written");
  if (layout_.index_always || shards_.size() > 1) write_text("model.safetensors.index.json", index_text());
  write_text("config.json", config);
  for (const int file : files_) {
    if (::fsync(file) != 0) fail(partial_, "cannot write");
  }
  sync_path(partial_);
  if (fs::exists(folder_)) throw std::runtime_error(folder_.string() + ": has come into being meanwhile");
  std::error_code error;
  fs::rename(partial_, folder_, error);
  if (error) throw std::runtime_error(folder_.string() + ": cannot rename to it: " + error.message());
  created_ = false;
  sync_path(folder_.has_parent_path() ? folder_.parent_path() : ".");
}

}  // namespace tramontane
