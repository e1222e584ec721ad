// Fuzz input of two parts: 16 bits of length, so many bytes of text, the rest. Fuzzing programs only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace tramontane {

struct SplitInput {
  std::span<const uint8_t> text, rest;

  SplitInput(const uint8_t* data, size_t size) {
    if (size < 2) return;
    const size_t wanted = data[0] | static_cast<size_t>(data[1]) << 8, length = std::min(wanted, size - 2);
    text = {data + 2, length};
    rest = {data + 2 + length, size - 2 - length};
  }
};

}  // namespace tramontane
