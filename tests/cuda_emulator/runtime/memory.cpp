// cudaMalloc and its relatives, copies, fills, symbols.
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <cstring>

#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {
namespace {

u64 address_of(const void* pointer) {
  return reinterpret_cast<u64>(pointer);
}
bool is_device(const void* pointer) {
  return DeviceMemory::instance().is_device(address_of(pointer));
}
bool is_pinned(const void* pointer, u64 bytes) {
  return DeviceMemory::instance().is_pinned(address_of(pointer), bytes);
}

// A range given to a copy must be alive as a whole when the call is made, and lie where the kind says.
void check_range(const char* call, const void* pointer, u64 bytes, bool must_be_device, bool must_be_host) {
  if (must_be_device && !is_device(pointer))
    refuse(cudaErrorInvalidValue, std::string(call) + ": a host pointer is given as device memory");
  if (must_be_host && is_device(pointer))
    refuse(cudaErrorInvalidValue, std::string(call) + ": a device pointer is given as host memory");
  AddressRange range;
  if (is_device(pointer) && !DeviceMemory::instance().find(address_of(pointer), bytes, range))
    refuse(cudaErrorInvalidValue, std::string(call) + ": " + std::to_string(bytes) +
                                      " bytes of device memory that begin or end " +
                                      DeviceMemory::instance().explain(address_of(pointer) + bytes - 1));
}

void check_copy(const char* call, const void* to, const void* from, u64 bytes, cudaMemcpyKind kind) {
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  const bool to_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyDeviceToHost;
  const bool from_host = kind == cudaMemcpyHostToHost || kind == cudaMemcpyHostToDevice;
  require(static_cast<unsigned>(kind) <= cudaMemcpyDefault, std::string(call) + ": unknown direction",
          cudaErrorInvalidMemcpyDirection);
  check_range(call, to, bytes, to_device, to_host);
  check_range(call, from, bytes, from_device, from_host);
}

void move(void* to, const void* from, u64 bytes) {
  DeviceMemory& memory = DeviceMemory::instance();
  if (is_device(to) && is_device(from))
    memory.copy(address_of(to), address_of(from), bytes);
  else if (is_device(to))
    memory.copy_in(address_of(to), from, bytes);
  else if (is_device(from))
    memory.copy_out(to, address_of(from), bytes);
  else
    std::memmove(to, from, bytes);
}

// A copy between rows; a plain one has one row.
struct Copy {
  void* to;
  u64 to_pitch;
  const void* from;
  u64 from_pitch;
  u64 width;
  u64 height;

  u64 to_bytes() const { return (height - 1) * to_pitch + width; }
  u64 from_bytes() const { return (height - 1) * from_pitch + width; }
  void perform() const {
    for (u64 row = 0; row < height; ++row)
      move(static_cast<u8*>(to) + row * to_pitch, static_cast<const u8*>(from) + row * from_pitch, width);
  }
};

bool is_pageable(const void* pointer, u64 bytes) {
  return !is_device(pointer) && !is_pinned(pointer, bytes);
}

void copy(Runtime& runtime, const char* call, Copy c, cudaMemcpyKind kind, cudaStream_t handle,
          bool asynchronous) {
  if (c.width == 0 || c.height == 0) return;
  check_copy(call, c.to, c.from, c.to_bytes(), kind);
  check_range(call, c.from, c.from_bytes(), false, false);
  runtime.uploads += is_device(c.to) && !is_device(c.from);
  Stream& stream = runtime.streams.get(handle);
  if (!asynchronous) runtime.streams.forbid_in_capture(call);
  // Pageable memory is read before the call returns; what goes there has arrived when it returns.
  const bool reads_now =
      asynchronous && !stream.capture && is_pageable(c.from, c.from_bytes()) && is_device(c.to);
  const bool waits = !asynchronous || (!stream.capture && is_pageable(c.to, c.to_bytes()));
  if (reads_now) {
    const u8* begin = static_cast<const u8*>(c.from);
    runtime.streams.submit(stream, [c, staged = std::vector<u8>(begin, begin + c.from_bytes())]() mutable {
      c.from = staged.data();
      c.perform();
    });
  } else {
    runtime.streams.submit(stream, [c] { c.perform(); });
  }
  if (waits) runtime.streams.synchronize(stream);
}

cudaError_t copy_api(const char* call, Copy c, cudaMemcpyKind kind, cudaStream_t stream, bool asynchronous) {
  return api([&](Runtime& runtime) { copy(runtime, call, c, kind, stream, asynchronous); }, call);
}

Copy plain(void* to, const void* from, u64 bytes) {
  return {to, bytes, from, bytes, bytes, 1};
}

void fill(Runtime& runtime, const char* call, void* to, u64 pitch, int value, u64 width, u64 height,
          cudaStream_t stream) {
  if (width == 0 || height == 0) return;
  check_range(call, to, (height - 1) * pitch + width, false, false);
  require(is_device(to) || is_pinned(to, (height - 1) * pitch + width),
          std::string(call) + ": neither device nor pinned memory");
  runtime.streams.submit(runtime.streams.get(stream), [=] {
    for (u64 row = 0; row < height; ++row)
      DeviceMemory::instance().fill(address_of(to) + row * pitch, static_cast<u8>(value), width);
  });
}

void allocate(void** pointer, u64 bytes) {
  *pointer = nullptr;
  if (bytes == 0) return;
  const u64 address = DeviceMemory::instance().allocate(bytes);
  if (!address) refuse(cudaErrorMemoryAllocation, "out of device memory");
  *pointer = reinterpret_cast<void*>(address);
}

void release(void* pointer) {
  require(!pointer || DeviceMemory::instance().release(address_of(pointer)),
          "cudaFree of a pointer that cudaMalloc did not give");
}

void allocate_host(Runtime& runtime, const char* call, void** pointer, u64 bytes) {
  runtime.streams.forbid_in_capture(call);
  *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096 + 4096);
  if (!*pointer) refuse(cudaErrorMemoryAllocation, "out of host memory");
  std::memset(*pointer, 0xFF, bytes);
  DeviceMemory::instance().add_host(*pointer, bytes);
}

void* symbol_at(Runtime& runtime, const void* symbol, u64 offset, u64 bytes) {
  u64 size = 0;
  const u64 address = runtime.variable_address(symbol, &size);
  require(offset <= size && bytes <= size - offset,
          "copy beyond a device variable of " + std::to_string(size) + " bytes");
  return reinterpret_cast<void*>(address + offset);
}

cudaError_t copy_symbol(void* host, const void* symbol, u64 bytes, u64 offset, bool to_symbol,
                        cudaMemcpyKind kind, cudaStream_t stream, bool asynchronous) {
  return api([&](Runtime& runtime) {
    void* device = symbol_at(runtime, symbol, offset, bytes);
    copy(runtime, "cudaMemcpyToSymbol/FromSymbol",
         to_symbol ? plain(device, host, bytes) : plain(host, device, bytes), kind, stream, asynchronous);
  });
}

}  // namespace
}  // namespace tramontane::emulator

using namespace tramontane::emulator;

extern "C" {

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  return api([&](Runtime& runtime) {
    runtime.streams.forbid_in_capture("cudaMalloc");
    allocate(pointer, bytes);
  });
}

// Waits for the device first, as the real one does.
cudaError_t cudaFree(void* pointer) {
  return api([&](Runtime& runtime) {
    if (!pointer) return;
    runtime.streams.forbid_in_capture("cudaFree");
    runtime.streams.synchronize_all();
    release(pointer);
  });
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    require(!runtime.streams.get(stream).capture, "cudaMallocAsync in a capture", cudaErrorNotSupported);
    allocate(pointer, bytes);
  });
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    require(!runtime.streams.get(stream).capture, "cudaFreeAsync in a capture", cudaErrorNotSupported);
    AddressRange range;
    require(
        DeviceMemory::instance().find(address_of(pointer), 1, range) && range.begin == address_of(pointer),
        "cudaFreeAsync of a pointer that was not allocated");
    runtime.streams.submit(runtime.streams.get(stream), [pointer] { release(pointer); });
  });
}

cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned) {
  return api([&](Runtime& runtime) { allocate_host(runtime, "cudaHostAlloc", pointer, bytes); });
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  return api([&](Runtime& runtime) { allocate_host(runtime, "cudaMallocHost", pointer, bytes); });
}

cudaError_t cudaFreeHost(void* pointer) {
  return api([&](Runtime& runtime) {
    if (!pointer) return;
    runtime.streams.forbid_in_capture("cudaFreeHost");
    runtime.streams.synchronize_all();
    require(DeviceMemory::instance().remove_host(pointer),
            "cudaFreeHost of a pointer that cudaHostAlloc did not give");
    std::free(pointer);
  });
}

cudaError_t cudaHostRegister(void* pointer, std::size_t bytes, unsigned) {
  return api([&](Runtime& runtime) {
    runtime.streams.forbid_in_capture("cudaHostRegister");
    require(!is_pinned(pointer, 1), "the memory is registered already", cudaErrorHostMemoryAlreadyRegistered);
    DeviceMemory::instance().add_host(pointer, bytes);
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return api([&](Runtime& runtime) {
    runtime.streams.forbid_in_capture("cudaHostUnregister");
    runtime.streams.synchronize_all();
    require(DeviceMemory::instance().remove_host(pointer), "the memory is not registered",
            cudaErrorHostMemoryNotRegistered);
  });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  return api([&](Runtime&) {
    require(is_pinned(host, 1), "no pinned memory");
    *device = host;
  });
}

cudaError_t cudaMallocManaged(void**, std::size_t, unsigned) {
  return api(
      [](Runtime&) { refuse(cudaErrorNotSupported, "managed memory is not supported by the PTX emulator"); });
}

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return api([&](Runtime& runtime) {
    *total = options().memory;
    *free = options().memory - DeviceMemory::instance().used() - runtime.graph_bytes;
  });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return api([&](Runtime&) {
    *attributes = {};
    AddressRange range;
    const bool known = DeviceMemory::instance().find(address_of(pointer), 1, range);
    attributes->type = !known               ? cudaMemoryTypeUnregistered
                       : is_device(pointer) ? cudaMemoryTypeDevice
                                            : cudaMemoryTypeHost;
    attributes->devicePointer = known ? const_cast<void*>(pointer) : nullptr;
    attributes->hostPointer = known && is_device(pointer) ? nullptr : const_cast<void*>(pointer);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return copy_api("cudaMemcpy", plain(to, from, bytes), kind, nullptr, false);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return copy_api("cudaMemcpyAsync", plain(to, from, bytes), kind, stream, true);
}
cudaError_t cudaMemcpy2D(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                         std::size_t width, std::size_t height, cudaMemcpyKind kind) {
  return copy_api("cudaMemcpy2D", {to, to_pitch, from, from_pitch, width, height}, kind, nullptr, false);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return copy_api("cudaMemcpy2DAsync", {to, to_pitch, from, from_pitch, width, height}, kind, stream, true);
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, std::size_t bytes, std::size_t offset,
                               cudaMemcpyKind kind) {
  return copy_symbol(const_cast<void*>(from), symbol, bytes, offset, true, kind, nullptr, false);
}
cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, std::size_t bytes,
                                    std::size_t offset, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_symbol(const_cast<void*>(from), symbol, bytes, offset, true, kind, stream, true);
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, std::size_t bytes, std::size_t offset,
                                 cudaMemcpyKind kind) {
  return copy_symbol(to, symbol, bytes, offset, false, kind, nullptr, false);
}
cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, std::size_t bytes, std::size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_symbol(to, symbol, bytes, offset, false, kind, stream, true);
}
cudaError_t cudaGetSymbolAddress(void** pointer, const void* symbol) {
  return api([&](Runtime& runtime) { *pointer = reinterpret_cast<void*>(runtime.variable_address(symbol)); });
}
cudaError_t cudaGetSymbolSize(std::size_t* bytes, const void* symbol) {
  return api([&](Runtime& runtime) {
    u64 size = 0;
    runtime.variable_address(symbol, &size);
    *bytes = size;
  });
}

cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return api([&](Runtime& runtime) { fill(runtime, "cudaMemset", to, bytes, value, bytes, 1, nullptr); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return api([&](Runtime& runtime) { fill(runtime, "cudaMemsetAsync", to, bytes, value, bytes, 1, stream); });
}
cudaError_t cudaMemset2DAsync(void* to, std::size_t pitch, int value, std::size_t width, std::size_t height,
                              cudaStream_t stream) {
  return api(
      [&](Runtime& runtime) { fill(runtime, "cudaMemset2DAsync", to, pitch, value, width, height, stream); });
}

}  // extern "C"
