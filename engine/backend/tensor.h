// TensorView and Buffer: memory on one device, seen and owned. Neither knows how to compute; see backend.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "engine/backend/dtype.h"

namespace tramontane {

// A non-owning 2-D view, rows of contiguous elements. A vector is one row of `cols` elements.
// Whether `data` may be dereferenced by the host is the owning backend's business.
struct TensorView {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // in elements, >= cols

  bool empty() const { return data == nullptr; }
  template <typename T>
  T* row(int64_t r) const {
    return reinterpret_cast<T*>(data) + r * row_stride;
  }
  // The first n rows.
  TensorView head(int64_t n) const { return {data, dtype, n, cols, row_stride}; }
  // n columns from `first` on: how the parts of a stacked matrix write their own share of a fused output.
  TensorView columns(int64_t first, int64_t n) const {
    return {data + first * static_cast<int64_t>(size_of(dtype)), dtype, rows, n, row_stride};
  }
};

// Owns bytes on one device, released by the backend that allocated them. Move-only.
class Buffer {
 public:
  using Release = void (*)(std::byte* data, size_t size);

  Buffer() = default;
  Buffer(std::byte* data, size_t size, Release release) : data_(data), size_(size), release_(release) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer(std::move(other)).swap(*this);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) release_(data_, size_);
  }

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  TensorView view(DType dtype, int64_t rows, int64_t cols) const { return {data_, dtype, rows, cols, cols}; }

 private:
  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
  }

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  Release release_ = nullptr;
};

}  // namespace tramontane
