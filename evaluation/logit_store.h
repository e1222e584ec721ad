// LogitStore: rows of FP32 logits kept between two models' runs, in an unnamed temporary file, so that memory
// does not grow with the number of positions. One thread.
#pragma once

#include <cstddef>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

namespace tramontane {

class LogitStore {
 public:
  // Throws std::runtime_error when no temporary file can be made.
  explicit LogitStore(size_t vocab_size);
  // Throws std::runtime_error when the disk is full.
  void append(std::span<const float> row);
  // Row `index` in order of appending; the span is valid until the next call.
  std::span<const float> read(size_t index);
  size_t rows() const { return rows_; }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::unique_ptr<std::FILE, Close> file_;
  std::vector<float> row_;
  size_t rows_ = 0;
};

}  // namespace tramontane
