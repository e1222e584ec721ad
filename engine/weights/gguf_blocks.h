// The tensor types of GGUF and their conversion to canonical matrices (engine/backend/matrix.h). Codes are
// moved, never requantised: the canonical weight equals ggml's own dequantisation bit for bit. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

struct CanonicalRows;  // gguf_blocks.cpp

// One block of a type: converts the block's bytes to codes, scales and biases number `block` of the matrix.
using ConvertBlock = void (*)(const uint8_t* block, const CanonicalRows& rows, size_t index);

struct GgmlType {
  uint32_t number;  // enum ggml_type
  std::string_view name;
  uint32_t block;  // elements
  uint32_t bytes;  // of a block
  bool dense = false;
  QuantLayout layout{};  // quantised types
  DType scale_dtype = DType::f16;
  ConvertBlock convert = nullptr;

  bool supported() const { return dense || convert != nullptr; }
};

// The type with ggml's number, supported or not; null for a number that ggml does not use.
const GgmlType* find_ggml_type(uint32_t number);

// Reads a tensor of any supported type.
StoredWeight read_gguf_weight(TensorTable& table, const std::string& name, int64_t rows, int64_t cols);

}  // namespace tramontane
