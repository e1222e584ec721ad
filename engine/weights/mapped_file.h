// MappedFile: a whole file as read-only bytes (mmap). Immutable; reading is safe from any thread.
// A file that another program truncates while it is mapped raises SIGBUS on access: replace checkpoints by
// rename, never in place.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace tramontane {

class MappedFile {
 public:
  // Throws std::runtime_error naming the file when it is missing, not a regular file, empty or unreadable.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  // Pages that have been read count as the process's memory until someone needs the room. This hands them
  // back at once; what is read again comes from the file again.
  void release_pages() const;

 private:
  MappedFile(std::filesystem::path path, std::span<const std::byte> bytes)
      : path_(std::move(path)), bytes_(bytes) {}

  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace tramontane
