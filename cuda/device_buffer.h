// Device memory as Buffers, counted. The thread's current device is the one that they lie on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "engine/backend/tensor.h"

namespace tramontane::cuda {

// Not cleared. Throws std::runtime_error naming `label`, the size and what is free when there is not enough.
Buffer allocate_device(size_t bytes, std::string_view label);

// What `bytes` take of the device: cudaMalloc hands out 512 bytes of shared pages, or pages of 2 MiB of its
// own.
uint64_t device_bytes_for(uint64_t bytes);
// Bytes that all Buffers on the device take now.
uint64_t device_bytes_allocated();
// Counts releases: what remembers addresses (graphs) is out of date when it has moved.
uint64_t device_releases();

}  // namespace tramontane::cuda
