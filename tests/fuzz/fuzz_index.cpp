// Any bytes as model.safetensors.index.json and any as the shard one.safetensors beside it: every tensor of
// the table lies where the index says, or a std::runtime_error.
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "engine/weights/safetensors.h"
#include "tests/fuzz/memory_file.h"
#include "tests/fuzz/split_input.h"

using namespace tramontane;
namespace fs = std::filesystem;

namespace {

// The reader takes a folder: one of links to the files in memory.
class LinkFolder {
 public:
  LinkFolder() : path_(fs::temp_directory_path() / ("fuzz_index." + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~LinkFolder() { fs::remove_all(path_); }
  void link(const char* name, const fs::path& target) const {
    fs::remove(path_ / name);
    fs::create_symlink(target, path_ / name);
  }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const LinkFolder folder;
  const SplitInput input(data, size);
  const MemoryFile index(input.text.data(), input.text.size()), shard(input.rest.data(), input.rest.size());
  folder.link("model.safetensors.index.json", index.path());
  folder.link("one.safetensors", shard.path());
  try {
    const SafetensorsFolder read = read_safetensors_folder(folder.path(), "model.safetensors");
    for (const StoredTensor* tensor : read.table.unused()) {
      if (tensor->file->path().filename() != "one.safetensors") std::abort();
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
