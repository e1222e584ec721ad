// The device's memory: an address range that the host cannot touch, and what is known of every byte in it.
#pragma once

#include <map>
#include <shared_mutex>
#include <string>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

// Address space, all zeros, that takes memory only where it is written.
void* reserve_zeros(u64 bytes);

struct AddressRange {
  u64 begin = 0;
  u64 end = 0;
  bool contains(u64 address, u64 bytes) const {
    return address >= begin && address <= end && bytes <= end - address;
  }
};

// Device addresses lie in a reserved range without access rights, so host code that follows a device pointer
// crashes as on a real machine; the bytes are kept at a constant distance from it. Addresses are never given
// out twice: what was freed stays known as freed. Thread-safe; the bytes themselves are guarded by the
// callers' own order.
class DeviceMemory {
 public:
  static DeviceMemory& instance();

  // Fresh memory, poisoned, at an address divisible by 256 (by no more). 0 when options().memory is used up.
  u64 allocate(u64 bytes);
  // False for anything but the begin of a live allocation.
  bool release(u64 address);
  void release_all();

  // Host memory that kernels may read and write (pinned). Its addresses are the host's.
  void add_host(const void* begin, u64 bytes);
  bool remove_host(const void* begin);

  static constexpr u64 kArenaBytes = 1ull << 40;
  u64 offset(u64 address) const { return address - device_; }
  bool is_device(u64 address) const { return address - device_ < kArenaBytes; }
  bool is_pinned(u64 address, u64 bytes) const;
  // The live allocation (device or pinned) that holds the whole range; false when there is none.
  bool find(u64 address, u64 bytes, AddressRange& range) const;
  // What is wrong with an address that find() does not know, for messages.
  std::string explain(u64 address) const;
  // Changes when an allocation goes away: what find() returned before may be out of date.
  u64 generation() const { return __atomic_load_n(&generation_, __ATOMIC_ACQUIRE); }

  u8* host(u64 address) const {
    return reinterpret_cast<u8*>(is_device(address) ? address + distance_ : address);
  }
  bool is_defined(u64 address, u64 bytes) const;
  void set_defined(u64 address, u64 bytes);
  void copy_in(u64 to, const void* from, u64 bytes);
  // Bytes never written arrive as 0xFF.
  void copy_out(void* to, u64 from, u64 bytes) const;
  // Device to device: what was not written stays so.
  void copy(u64 to, u64 from, u64 bytes);
  void fill(u64 to, u8 value, u64 bytes);

  u64 used() const;

 private:
  static constexpr u64 kPage = 4096;
  static constexpr u8 kWholePageDefined = 1;

  DeviceMemory();
  u8* shadow(u64 address) const { return shadow_ + (address - device_); }
  u8& page(u64 address) const { return pages_[(address - device_) / kPage]; }
  void forget(AddressRange range);

  u64 device_ = 0;
  u64 distance_ = 0;      // host(address) - address
  u8* shadow_ = nullptr;  // one byte per byte: was it written
  u8* pages_ = nullptr;   // kWholePageDefined: no need to look at the shadow
  mutable std::shared_mutex mutex_;
  std::map<u64, u64> live_;  // begin -> bytes
  std::map<u64, u64> freed_;
  std::map<u64, u64> pinned_;
  u64 next_ = 0;
  u64 used_ = 0;
  u64 generation_ = 1;
};

}  // namespace tramontane::emulator
