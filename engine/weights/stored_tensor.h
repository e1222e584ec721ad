// What the file formats hand to the layouts: tensors as stored, by name, and a record of which were used.
// Loading thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/backend/matrix.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/mapped_file.h"

namespace tramontane {

// A tensor as a file holds it. The bytes lie inside `file` and have the size that dtype and shape ask for.
struct StoredTensor {
  std::string name;
  std::string dtype;           // the format's own spelling: "BF16", "U32", "Q4_1"
  std::vector<int64_t> shape;  // slowest dimension first, also for GGUF
  std::span<const std::byte> bytes;
  std::shared_ptr<const MappedFile> file;

  std::string where() const;  // "model.safetensors: tensor lm_head.weight"
};

// "[2, 3]".
std::string shape_text(const std::vector<int64_t>& shape);
// a * b for sizes from outside; nothing when it does not fit.
std::optional<uint64_t> checked_product(uint64_t a, uint64_t b);
// Throws unless no two tensors share bytes of one file.
void check_no_overlap(const std::vector<StoredTensor>& tensors);

// All tensors of a checkpoint. Each must be taken exactly once: what is left over at the end is an error of
// the checkpoint.
class TensorTable {
 public:
  explicit TensorTable(std::string where) : where_(std::move(where)) {}

  void add(StoredTensor tensor);  // throws std::runtime_error for a name that is there already
  bool has(const std::string& name) const { return tensors_.contains(name); }
  // The tensor, marked as used. Throws std::runtime_error naming it when it is missing.
  const StoredTensor& take(const std::string& name);
  std::vector<const StoredTensor*> unused() const;
  uint64_t bytes() const;
  void release_pages() const;  // of every file: MappedFile

 private:
  struct Entry {
    StoredTensor tensor;
    bool used = false;
  };
  std::string where_;
  std::map<std::string, Entry> tensors_;
};

// One weight, companions (scales, absmax, ...) included. `load` brings it to canonical form in the file's own
// row order; conversion happens there, on demand. A vector [cols] is one row.
struct StoredWeight {
  TensorInfo info;
  int64_t rows = 0, cols = 0;
  std::function<HostMatrix()> load;
};

// Throws unless the tensor's shape is [rows, cols], or [cols] when rows is 0.
void check_shape(const StoredTensor& tensor, int64_t rows, int64_t cols);
// Throws, naming the tensor, unless all scales and biases of a quantised matrix are finite: one NaN among
// them would make every answer of the model NaN.
void check_scales(const HostMatrix& matrix, const StoredTensor& tensor);
// A weight without its `load`, described by its main tensor; companions' bytes are the caller's to add.
StoredWeight describe(const StoredTensor& tensor, const std::string& format, int64_t rows, int64_t cols);

// How a layout reads the weight `name`, whose shape must be [rows, cols] (rows == 0: a vector [cols]).
// Takes its tensors from the table; throws std::runtime_error naming the tensor and what is wrong with it.
using WeightReader =
    std::function<StoredWeight(TensorTable&, const std::string& name, int64_t rows, int64_t cols)>;

// F32, F16 and BF16 tensors: a view of the mapping (or a copy where the file does not align its elements).
StoredWeight read_dense(TensorTable& table, const std::string& name, int64_t rows, int64_t cols);

// What a matrix's spans view: mapped files, converted bytes, or both.
struct MatrixOwner {
  std::vector<std::shared_ptr<const MappedFile>> files;
  std::vector<std::byte> codes, scales, biases;
};
// `shape` with its spans on the owner's vectors.
HostMatrix own_all(HostMatrix shape, std::shared_ptr<MatrixOwner> owner);

// The span itself when its address suits elements of `size` bytes, else a copy in `copy`. Old safetensors
// files align nothing.
std::span<const std::byte> aligned(std::span<const std::byte> bytes, size_t size,
                                   std::vector<std::byte>& copy);

}  // namespace tramontane
