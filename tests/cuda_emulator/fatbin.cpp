// The format is undocumented; the fields below are those that nvcc 13 writes.
#include "tests/cuda_emulator/fatbin.h"

#include <cstring>
#include <stdexcept>

#ifdef EMULATOR_HAVE_LZ4
#include <lz4.h>
#endif
#ifdef EMULATOR_HAVE_ZSTD
#include <zstd.h>
#endif

namespace tramontane::emulator {
namespace {

constexpr u32 kWrapperMagic = 0x466243b1;
constexpr u32 kDataMagic = 0xba55ed50;
constexpr u16 kPtxEntry = 1;
constexpr u16 kElfEntry = 2;
constexpr u64 kLz4Flag = 0x2000;
constexpr u64 kZstdFlag = 0x8000;
constexpr u64 kMaxText = 1ull << 30;

template <class T>
T field(const u8* at, std::size_t offset) {
  T value;
  std::memcpy(&value, at + offset, sizeof value);
  return value;
}

struct Entry {
  explicit Entry(const u8* at)
      : kind(field<u16>(at, 0)),
        header(field<u32>(at, 4)),
        payload(field<u64>(at, 8)),
        compressed(field<u32>(at, 16)),
        target(field<u32>(at, 28)),
        flags(field<u64>(at, 40)),
        uncompressed(field<u64>(at, 56)) {}
  u16 kind;
  u32 header;
  u64 payload;
  u32 compressed;  // bytes of the payload that are compressed data
  u32 target;
  u64 flags;
  u64 uncompressed;
};

[[noreturn]] void fail_to_decompress(const char* method) {
  throw std::runtime_error(std::string("PTX emulator: a fat binary is compressed with ") + method +
                           ", which this build cannot read or finds damaged; compile with nvcc -no-compress");
}

std::string decompress_lz4([[maybe_unused]] const u8* data, [[maybe_unused]] const Entry& entry) {
#ifdef EMULATOR_HAVE_LZ4
  std::string text(entry.uncompressed, '\0');
  const int size = LZ4_decompress_safe(reinterpret_cast<const char*>(data), text.data(),
                                       static_cast<int>(entry.compressed), static_cast<int>(text.size()));
  if (size == static_cast<int>(text.size())) return text;
#endif
  fail_to_decompress("LZ4");
}

std::string decompress_zstd([[maybe_unused]] const u8* data, [[maybe_unused]] const Entry& entry) {
#ifdef EMULATOR_HAVE_ZSTD
  std::string text(entry.uncompressed, '\0');
  if (ZSTD_decompress(text.data(), text.size(), data, entry.compressed) == text.size()) return text;
#endif
  fail_to_decompress("zstd");
}

std::string payload_of(const u8* at, const Entry& entry) {
  if (entry.payload > kMaxText || entry.uncompressed > kMaxText)
    throw std::runtime_error("PTX emulator: fat binary entry of an absurd size");
  const u8* data = at + entry.header;
  if (entry.flags & kZstdFlag) return decompress_zstd(data, entry);
  if (entry.flags & kLz4Flag) return decompress_lz4(data, entry);
  return {reinterpret_cast<const char*>(data), entry.payload};
}

// Calls visit(address, entry) for each entry.
template <class F>
void for_each_entry(const void* wrapper, F visit) {
  const u8* w = static_cast<const u8*>(wrapper);
  if (field<u32>(w, 0) != kWrapperMagic)
    throw std::runtime_error("PTX emulator: unknown wrapper of a fat binary");
  const u8* data = field<const u8*>(w, 8);
  if (field<u32>(data, 0) != kDataMagic)
    throw std::runtime_error("PTX emulator: unknown format of a fat binary");
  const u8* at = data + field<u16>(data, 6);
  const u8* end = at + field<u64>(data, 8);
  while (at < end) {
    const Entry entry(at);
    visit(at, entry);
    if (entry.header == 0) throw std::runtime_error("PTX emulator: damaged fat binary");
    at += entry.header + entry.payload;
  }
}

}  // namespace

std::vector<PtxImage> ptx_of(const void* wrapper) {
  std::vector<PtxImage> images;
  for_each_entry(wrapper, [&](const u8* at, const Entry& entry) {
    if (entry.kind != kPtxEntry) return;
    std::string text = payload_of(at, entry);
    text.resize(std::strlen(text.c_str()));  // padded with zeros
    images.push_back({entry.target, std::move(text)});
  });
  return images;
}

std::string machine_code_of(const void* wrapper, u32 target) {
  const u8* best = nullptr;
  for_each_entry(wrapper, [&](const u8* at, const Entry& entry) {
    if (entry.kind == kElfEntry && entry.target <= target && (!best || entry.target > Entry(best).target))
      best = at;
  });
  return best ? payload_of(best, Entry(best)) : "";
}

}  // namespace tramontane::emulator
