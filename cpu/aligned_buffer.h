// Aligned host memory for everything the CPU backend keeps: weights, activations, KV pages. Callable from any
// thread.
#pragma once

#include <cstddef>
#include <string_view>

#include "engine/backend/tensor.h"

namespace tramontane {

// `bytes` zero-filled bytes at a 64-byte boundary (a cache line, one AVX-512 vector); an empty Buffer for 0.
// From 4 MiB on the memory comes page by page from the kernel, in huge pages where it has them, and is zero
// without being written. Throws std::runtime_error naming `label` and the size when the system refuses.
Buffer allocate_aligned(size_t bytes, std::string_view label);

}  // namespace tramontane
