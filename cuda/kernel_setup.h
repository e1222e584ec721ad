// What CUDA is told and asked about a kernel before it is launched: once each, for a step has hundreds of
// launches. A kernel is the address of its host function. Any thread; for the current device.
#pragma once

#include <cstddef>

namespace tramontane::cuda {

// Shared memory, static and dynamic, that every GPU from sm_80 on lets a block have: sm_86 and sm_89 99 KB,
// sm_80 163, sm_90 227.
inline constexpr size_t kMostSharedBytes = 99 * 1024;

// Brings the kernel's code to the device, which its first launch would do otherwise, and lets its blocks have
// so much dynamic shared memory.
void load_kernel(const void* kernel, size_t dynamic_bytes, const char* operation);

// How many blocks of the kernel the device runs at once.
int blocks_at_once(const void* kernel, int threads, size_t dynamic_bytes, const char* operation);

template <class... Arguments>
void load_kernel(void (*kernel)(Arguments...), size_t dynamic_bytes, const char* operation) {
  load_kernel(reinterpret_cast<const void*>(kernel), dynamic_bytes, operation);
}
template <class... Arguments>
int blocks_at_once(void (*kernel)(Arguments...), int threads, size_t dynamic_bytes, const char* operation) {
  return blocks_at_once(reinterpret_cast<const void*>(kernel), threads, dynamic_bytes, operation);
}

}  // namespace tramontane::cuda
