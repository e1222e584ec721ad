#include "tests/cuda_emulator/device_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

#include "tests/cuda_emulator/options.h"

namespace tramontane::emulator {
namespace {

void* reserve(u64 bytes, int protection) {
  void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED)
    throw std::runtime_error("PTX emulator: cannot reserve address space for the device's memory");
  return p;
}

// The entry of `ranges` that begins at or before the address; end() when there is none.
std::map<u64, u64>::const_iterator at_or_before(const std::map<u64, u64>& ranges, u64 address) {
  auto it = ranges.upper_bound(address);
  return it == ranges.begin() ? ranges.end() : std::prev(it);
}

bool lookup(const std::map<u64, u64>& ranges, u64 address, u64 bytes, AddressRange& range) {
  const auto it = at_or_before(ranges, address);
  if (it == ranges.end()) return false;
  const AddressRange found{it->first, it->first + it->second};
  if (!found.contains(address, bytes)) return false;
  range = found;
  return true;
}

}  // namespace

void* reserve_zeros(u64 bytes) {
  return reserve(bytes, PROT_READ | PROT_WRITE);
}

DeviceMemory& DeviceMemory::instance() {
  static auto* memory =
      new DeviceMemory;  // never destroyed: programs free device memory in static destructors
  return *memory;
}

DeviceMemory::DeviceMemory() {
  device_ = reinterpret_cast<u64>(reserve(kArenaBytes, PROT_NONE));
  distance_ = reinterpret_cast<u64>(reserve_zeros(kArenaBytes)) - device_;
  shadow_ = static_cast<u8*>(reserve_zeros(kArenaBytes));
  pages_ = static_cast<u8*>(reserve_zeros(kArenaBytes / kPage));
  next_ = device_ + kPage;
}

u64 DeviceMemory::allocate(u64 bytes) {
  const std::unique_lock lock(mutex_);
  const u64 limit = options().memory;
  if (bytes > limit || used_ > limit - bytes) return 0;
  // 256 bytes are guarded on either side, and no address is more aligned than cudaMalloc promises.
  const u64 begin = (next_ + 256 + 511) / 512 * 512 + 256;
  if (begin + bytes + kPage > device_ + kArenaBytes) return 0;
  next_ = begin + bytes;
  live_[begin] = bytes;
  used_ += bytes;
  return begin;
}

bool DeviceMemory::release(u64 address) {
  const std::unique_lock lock(mutex_);
  const auto it = live_.find(address);
  if (it == live_.end()) return false;
  forget({it->first, it->first + it->second});
  used_ -= it->second;
  freed_.insert(*it);
  live_.erase(it);
  __atomic_add_fetch(&generation_, 1, __ATOMIC_RELEASE);
  return true;
}

void DeviceMemory::release_all() {
  for (;;) {
    u64 begin = 0;
    {
      const std::shared_lock lock(mutex_);
      if (live_.empty()) return;
      begin = live_.begin()->first;
    }
    release(begin);
  }
}

// Gives whole pages back to the system: they would cost memory for as long as the process lives.
void DeviceMemory::forget(AddressRange range) {
  const u64 begin = (range.begin + kPage - 1) / kPage * kPage;
  const u64 end = range.end / kPage * kPage;
  if (begin >= end) return;
  madvise(host(begin), end - begin, MADV_DONTNEED);
  madvise(shadow(begin), end - begin, MADV_DONTNEED);
  std::memset(&page(begin), 0, (end - begin) / kPage);
}

void DeviceMemory::add_host(const void* begin, u64 bytes) {
  const std::unique_lock lock(mutex_);
  pinned_[reinterpret_cast<u64>(begin)] = bytes;
}

bool DeviceMemory::remove_host(const void* begin) {
  const std::unique_lock lock(mutex_);
  __atomic_add_fetch(&generation_, 1, __ATOMIC_RELEASE);
  return pinned_.erase(reinterpret_cast<u64>(begin)) != 0;
}

bool DeviceMemory::is_pinned(u64 address, u64 bytes) const {
  const std::shared_lock lock(mutex_);
  AddressRange range;
  return lookup(pinned_, address, bytes, range);
}

bool DeviceMemory::find(u64 address, u64 bytes, AddressRange& range) const {
  const std::shared_lock lock(mutex_);
  return lookup(is_device(address) ? live_ : pinned_, address, bytes, range);
}

std::string DeviceMemory::explain(u64 address) const {
  const std::shared_lock lock(mutex_);
  AddressRange range;
  if (lookup(freed_, address, 1, range)) return "in memory that was freed";
  if (!is_device(address)) return "which is no device address";
  const auto it = at_or_before(live_, address);
  if (it == live_.end()) return "outside of every allocation";
  const u64 past = address - it->first;
  if (past < it->second) return "across the end of an allocation of " + std::to_string(it->second) + " bytes";
  return std::to_string(past - it->second) + " bytes past the end of an allocation of " +
         std::to_string(it->second) + " bytes";
}

bool DeviceMemory::is_defined(u64 address, u64 bytes) const {
  if (!is_device(address)) return true;
  while (bytes) {
    const u64 chunk = std::min(bytes, kPage - (address - device_) % kPage);
    if (page(address) != kWholePageDefined && std::memchr(shadow(address), 0, chunk)) return false;
    address += chunk;
    bytes -= chunk;
  }
  return true;
}

void DeviceMemory::set_defined(u64 address, u64 bytes) {
  if (!is_device(address)) return;
  while (bytes) {
    const u64 chunk = std::min(bytes, kPage - (address - device_) % kPage);
    if (chunk == kPage)
      page(address) = kWholePageDefined;
    else if (page(address) != kWholePageDefined)
      std::memset(shadow(address), 1, chunk);
    address += chunk;
    bytes -= chunk;
  }
}

void DeviceMemory::copy_in(u64 to, const void* from, u64 bytes) {
  std::memmove(host(to), from, bytes);
  set_defined(to, bytes);
}

void DeviceMemory::copy_out(void* to, u64 from, u64 bytes) const {
  std::memmove(to, host(from), bytes);
  if (is_defined(from, bytes)) return;
  for (u64 k = 0; k < bytes; ++k)
    if (!is_defined(from + k, 1)) static_cast<u8*>(to)[k] = 0xFF;
}

void DeviceMemory::copy(u64 to, u64 from, u64 bytes) {
  std::memmove(host(to), host(from), bytes);
  if (is_defined(from, bytes)) return set_defined(to, bytes);
  for (u64 k = 0; k < bytes; ++k) {
    if (is_defined(from + k, 1))
      set_defined(to + k, 1);
    else if (is_device(to) && page(to + k) != kWholePageDefined)
      *shadow(to + k) = 0;
  }
}

void DeviceMemory::fill(u64 to, u8 value, u64 bytes) {
  std::memset(host(to), value, bytes);
  set_defined(to, bytes);
}

u64 DeviceMemory::used() const {
  const std::shared_lock lock(mutex_);
  return used_;
}

}  // namespace tramontane::emulator
