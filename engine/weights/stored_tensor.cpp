#include "engine/weights/stored_tensor.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <stdexcept>
#include <utility>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

std::optional<DType> dense_dtype(const std::string& dtype) {
  for (const DType candidate : {DType::f32, DType::f16, DType::bf16}) {
    if (dtype == name_of(candidate)) return candidate;
  }
  return std::nullopt;
}

// NaN and infinities are the numbers whose exponent is all ones.
bool is_finite(const std::byte* at, DType dtype) {
  uint32_t bits = 0;
  std::memcpy(&bits, at, size_of(dtype));  // little-endian
  const uint32_t exponent = dtype == DType::f32 ? 0x7f800000u : dtype == DType::f16 ? 0x7c00u : 0x7f80u;
  return (bits & exponent) != exponent;
}

// The index of the first value that is not finite.
std::optional<size_t> find_not_finite(std::span<const std::byte> values, DType dtype) {
  const size_t size = size_of(dtype);
  for (size_t i = 0; i * size < values.size(); ++i) {
    if (!is_finite(values.data() + i * size, dtype)) return i;
  }
  return std::nullopt;
}

void check_finite(std::span<const std::byte> values, const char* what, const HostMatrix& m,
                  const StoredTensor& tensor) {
  const auto at = find_not_finite(values, m.scale_dtype);
  if (!at) return;
  const size_t groups = static_cast<size_t>(m.k / m.quant->group);
  throw std::runtime_error(tensor.where() + ": the " + what + " of row " + std::to_string(*at / groups) +
                           ", group " + std::to_string(*at % groups) + " is not finite");
}

// Of vectors alone: to look at every weight of a matrix would be to read the file once more.
void check_vector(std::span<const std::byte> values, DType dtype, const StoredTensor& tensor) {
  const auto at = find_not_finite(values, dtype);
  if (at) throw std::runtime_error(tensor.where() + ": value " + std::to_string(*at) + " is not finite");
}

}  // namespace

std::string StoredTensor::where() const {
  return file->path().string() + ": tensor " + name;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

std::optional<uint64_t> checked_product(uint64_t a, uint64_t b) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

void check_no_overlap(const std::vector<StoredTensor>& tensors) {
  std::vector<const StoredTensor*> order;
  for (const StoredTensor& tensor : tensors) {
    if (!tensor.bytes.empty()) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->bytes.data() < b->bytes.data(); });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->bytes.data() + order[i - 1]->bytes.size() > order[i]->bytes.data()) {
      throw std::runtime_error(order[i]->where() + " overlaps tensor " + order[i - 1]->name);
    }
  }
}

void TensorTable::add(StoredTensor tensor) {
  const auto found = tensors_.find(tensor.name);
  if (found != tensors_.end()) {
    throw std::runtime_error(tensor.where() + " is also in " + found->second.tensor.file->path().string());
  }
  std::string name = tensor.name;
  tensors_.emplace(std::move(name), Entry{std::move(tensor)});
}

const StoredTensor& TensorTable::take(const std::string& name) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) throw std::runtime_error(where_ + ": tensor " + name + " is missing");
  found->second.used = true;
  return found->second.tensor;
}

std::vector<const StoredTensor*> TensorTable::unused() const {
  std::vector<const StoredTensor*> result;
  for (const auto& [name, entry] : tensors_) {
    if (!entry.used) result.push_back(&entry.tensor);
  }
  return result;
}

uint64_t TensorTable::bytes() const {
  uint64_t total = 0;
  for (const auto& [name, entry] : tensors_) total += entry.tensor.bytes.size();
  return total;
}

void TensorTable::release_pages() const {
  std::set<std::shared_ptr<const MappedFile>> files;  // many tensors, few files
  for (const auto& [name, entry] : tensors_) files.insert(entry.tensor.file);
  for (const auto& file : files) file->release_pages();
}

std::span<const std::byte> aligned(std::span<const std::byte> bytes, size_t size,
                                   std::vector<std::byte>& copy) {
  if (reinterpret_cast<uintptr_t>(bytes.data()) % size == 0) return bytes;
  copy.assign(bytes.begin(), bytes.end());
  return copy;
}

HostMatrix own_all(HostMatrix shape, std::shared_ptr<MatrixOwner> owner) {
  shape.codes = owner->codes;
  shape.scales = owner->scales;
  shape.biases = owner->biases;
  shape.owner = std::move(owner);
  check_canonical(shape);
  return shape;
}

void check_shape(const StoredTensor& tensor, int64_t rows, int64_t cols) {
  const std::vector<int64_t> want = rows == 0 ? std::vector{cols} : std::vector{rows, cols};
  if (tensor.shape == want) return;
  throw std::runtime_error(tensor.where() + ": shape is " + shape_text(tensor.shape) + ", expected " +
                           shape_text(want));
}

void check_scales(const HostMatrix& matrix, const StoredTensor& tensor) {
  check_finite(matrix.scales, "scale", matrix, tensor);
  check_finite(matrix.biases, "bias", matrix, tensor);
}

StoredWeight describe(const StoredTensor& tensor, const std::string& format, int64_t rows, int64_t cols) {
  StoredWeight weight;
  weight.info.name = tensor.name;
  weight.info.format = format;
  weight.info.shape = rows == 0 ? std::vector{cols} : std::vector{rows, cols};
  weight.info.file = tensor.file->path().filename().string();
  weight.info.bytes = tensor.bytes.size();
  weight.rows = std::max<int64_t>(rows, 1);
  weight.cols = cols;
  return weight;
}

StoredWeight read_dense(TensorTable& table, const std::string& name, int64_t rows, int64_t cols) {
  const StoredTensor& tensor = table.take(name);
  const auto dtype = dense_dtype(tensor.dtype);
  if (!dtype) throw std::runtime_error(tensor.where() + ": dtype " + tensor.dtype + " is not supported here");
  check_shape(tensor, rows, cols);
  StoredWeight weight = describe(tensor, tensor.dtype, rows, cols);
  weight.load = [&tensor, dtype = *dtype, n = weight.rows, k = cols, is_vector = rows == 0] {
    HostMatrix m;
    m.n = n;
    m.k = k;
    m.dense_dtype = dtype;
    auto owner = std::make_shared<MatrixOwner>();
    owner->files = {tensor.file};
    m.codes = aligned(tensor.bytes, size_of(dtype), owner->codes);
    m.owner = std::move(owner);
    check_canonical(m);
    if (is_vector) check_vector(m.codes, dtype, tensor);
    return m;
  };
  return weight;
}

}  // namespace tramontane
