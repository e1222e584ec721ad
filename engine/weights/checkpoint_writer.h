// CheckpointWriter: writes a folder of safetensors files tensor by tensor, in any order, without holding more
// than the one at hand. The folder appears under its name only when it is complete: until then its files lie
// in a sibling "<name>.partial.<pid>", which goes with the writer. One thread.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "engine/weights/safetensors_writer.h"

namespace tramontane {

struct CheckpointLayout {
  std::string made_by = "pt";            // the files' "format"
  uint64_t shard_bytes = 5'000'000'000;  // most bytes of tensors in one file
  bool index_always = false;             // an index also for one file, as mlx_lm writes it
  uint64_t parameters = 0;               // the index's total_parameters
};

class CheckpointWriter {
 public:
  // Plans the files and creates them at full length, so that a disk too small is told before work begins.
  // Throws std::runtime_error when `folder` exists, its parent does not, or the space does not suffice.
  CheckpointWriter(std::filesystem::path folder, const std::vector<TensorSpec>& tensors,
                   CheckpointLayout layout);
  // Removes what is unfinished.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // All bytes of one planned tensor, once.
  void write(const std::string& name, std::span<const std::byte> bytes);
  // Another file of the folder.
  void write_file(const std::string& name, std::span<const std::byte> bytes);
  // Index and `config` come last, then the folder gets its name. Every tensor must have been written.
  void finish(const std::string& config);

 private:
  struct Place {
    size_t shard = 0;
    uint64_t offset = 0, bytes = 0;
    bool written = false;
  };

  void discard() noexcept;
  void plan(const std::vector<TensorSpec>& tensors);
  void check_space() const;
  void create_shards();
  std::string shard_name(size_t shard) const;
  void write_text(const std::string& name, const std::string& text);
  std::string index_text() const;

  std::filesystem::path folder_, partial_;
  CheckpointLayout layout_;
  std::vector<std::vector<TensorSpec>> shards_;
  std::map<std::string, Place> places_;
  std::vector<int> files_;
  uint64_t total_bytes_ = 0;
  bool created_ = false;
};

}  // namespace tramontane
