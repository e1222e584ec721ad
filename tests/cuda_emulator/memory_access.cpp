#include <cxxabi.h>

#include <cstdlib>
#include <cstring>

#include "tests/cuda_emulator/options.h"
#include "tests/cuda_emulator/warp.h"

namespace tramontane::emulator {
namespace {

std::string coordinates(const Dim& d) {
  return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")";
}

Dim thread_of(const Warp& warp, int lane) {
  const Dim& block = warp.block->launch->block;
  const u32 thread = warp.index * kLanes + static_cast<u32>(lane);
  return {thread % block.x, thread / block.x % block.y, thread / block.x / block.y};
}

std::string hex(u64 value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

const char* verb(Access access) {
  return access == Access::kRead ? "read" : access == Access::kWrite ? "write" : "atomic";
}

bool in_last_range(const Warp& warp, u64 address, u64 bytes) {
  return warp.last_generation == DeviceMemory::instance().generation() &&
         warp.last_range.contains(address, bytes);
}

bool in_allocation(Warp& warp, u64 address, u64 bytes) {
  if (in_last_range(warp, address, bytes)) return true;
  const u64 generation = DeviceMemory::instance().generation();
  if (!DeviceMemory::instance().find(address, bytes, warp.last_range)) return false;
  warp.last_generation = generation;
  return true;
}

// Null where nothing is to be kept or checked: one block, strong accesses, pinned memory.
const FenceCounts* watched(const Warp& warp, const Instruction& i, u64 address, Access access) {
  const FenceCounts& fences = warp.block->fences;
  const bool plain = access != Access::kAtomic && !i.strong;
  return fences.signalled && plain && DeviceMemory::instance().is_device(address) ? &fences : nullptr;
}

// An atomic or strong write: others may wait for it, and may then read what was fenced off before.
void signal(const Warp& warp, const Instruction& i, Access access) {
  const FenceCounts& fences = warp.block->fences;
  if (fences.signalled && (access == Access::kAtomic || (access == Access::kWrite && i.strong)))
    fences.signalled[warp.block->number].store(fences.passed, std::memory_order_release);
}

void note_write(const Warp& warp, const Instruction& i, u64 address, u64 bytes) {
  if (const FenceCounts* fences = watched(warp, i, address, Access::kWrite))
    GlobalRaces::instance().wrote(*fences, warp.block->number, DeviceMemory::instance().offset(address),
                                  bytes);
}

std::optional<u32> unpublished(const Warp& warp, const Instruction& i, u64 address, u64 bytes,
                               Access access) {
  const FenceCounts* fences = watched(warp, i, address, access);
  if (!fences) return std::nullopt;
  return GlobalRaces::instance().unpublished(*fences, warp.block->number,
                                             DeviceMemory::instance().offset(address), bytes);
}

u8* resolve_global(Warp& warp, const Instruction& i, int lane, u64 address, u32 bytes, Access access) {
  DeviceMemory& memory = DeviceMemory::instance();
  if ((options().memcheck || !memory.is_device(address)) && !in_allocation(warp, address, bytes))
    fault(warp, i, lane, cudaErrorIllegalAddress,
          "invalid global " + std::string(verb(access)) + " of " + std::to_string(bytes) + " bytes at " +
              hex(address) + ", " + memory.explain(address));
  u8* host = memory.host(address);
  signal(warp, i, access);
  if (access == Access::kRead)
    if (const auto writer = unpublished(warp, i, address, bytes, access))
      fault(warp, i, lane, cudaErrorLaunchFailure,
            "race: read of global memory that block number " + std::to_string(*writer) +
                " wrote in this launch, with no __threadfence() after it, at " + hex(address));
  if (access == Access::kWrite) {
    memory.set_defined(address, bytes);
    note_write(warp, i, address, bytes);
  } else if (!memory.is_defined(address, bytes)) {
    if (options().initcheck)
      fault(warp, i, lane, cudaErrorLaunchFailure,
            std::string(verb(access)) + " of global memory that was never written, " + std::to_string(bytes) +
                " bytes at " + hex(address));
    for (u32 k = 0; k < bytes; ++k)
      if (!memory.is_defined(address + k, 1)) host[k] = 0xFF;
    if (access == Access::kAtomic) memory.set_defined(address, bytes);
  }
  return host;
}

u8* resolve_shared(Warp& warp, const Instruction& i, int lane, u64 address, u32 bytes, Access access) {
  SharedMemory& shared = warp.block->shared;
  if (address > shared.bytes() || bytes > shared.bytes() - address)
    fault(warp, i, lane, cudaErrorIllegalAddress,
          "invalid shared " + std::string(verb(access)) + " of " + std::to_string(bytes) + " bytes at " +
              hex(address) + ", the block has " + std::to_string(shared.bytes()) + " bytes of shared memory");
  if (shared.checked())
    if (const char* problem = shared.access(warp.index, lane, warp.clock, static_cast<u32>(address), bytes,
                                            access, options().racecheck, options().initcheck))
      fault(warp, i, lane, cudaErrorLaunchFailure,
            std::string(problem) + " at shared address " + hex(address));
  return shared.data() + address;
}

u8* resolve_local(Warp& warp, const Instruction& i, int lane, u64 address, u32 bytes) {
  const u32 size = warp.kernel->local_bytes;
  if (address > size || bytes > size - address)
    fault(warp, i, lane, cudaErrorIllegalAddress, "invalid local access at " + hex(address));
  if (warp.local.empty()) warp.local.assign(size_t{size} * kLanes, 0xFF);
  return warp.local.data() + size_t{size} * static_cast<u32>(lane) + address;
}

u8* resolve_param(Warp& warp, const Instruction& i, int lane, u64 address, u32 bytes, Access access) {
  const std::vector<u8>& parameters = warp.block->launch->parameters;
  if (access != Access::kRead || address > parameters.size() || bytes > parameters.size() - address)
    fault(warp, i, lane, cudaErrorIllegalAddress, "invalid access to kernel parameters at " + hex(address));
  return const_cast<u8*>(parameters.data()) + address;
}

}  // namespace

std::string demangled(const std::string& name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status);
  if (status != 0 || !text) return name;
  std::string result(text);
  std::free(text);
  return result;
}

std::string describe(const Kernel& kernel, const Instruction& instruction) {
  if (instruction.index >= kernel.origin.size() || !kernel.origin[instruction.index])
    return "end of the kernel";
  const ptx::Instruction& origin = *kernel.origin[instruction.index];
  std::string where;
  if (const auto file = kernel.files.find(origin.source.file); file != kernel.files.end())
    where = file->second + ":" + std::to_string(origin.source.line) + ", ";
  return where + "PTX line " + std::to_string(origin.line) + ": " + origin.text;
}

void fault(const Warp& warp, const Instruction& instruction, int lane, cudaError_t error,
           const std::string& what) {
  throw Fault(error, what + " by thread " + coordinates(thread_of(warp, lane)) + " of block " +
                         coordinates(warp.block->index) + " in " + demangled(warp.kernel->name) + " at " +
                         describe(*warp.kernel, instruction));
}

bool resolve_range(Warp& warp, const Instruction& i, u64 address, u64 bytes, Access access) {
  DeviceMemory& memory = DeviceMemory::instance();
  if (!in_allocation(warp, address, bytes)) return false;
  if (access == Access::kWrite) {
    signal(warp, i, access);
    memory.set_defined(address, bytes);
    note_write(warp, i, address, bytes);
    return true;
  }
  return memory.is_defined(address, bytes) && !unpublished(warp, i, address, bytes, access);
}

u8* resolve(Warp& warp, const Instruction& i, int lane, u64 address, u32 bytes, ptx::Space space,
            Access access) {
  if (space == ptx::Space::kGlobal || space == ptx::Space::kNone || space == ptx::Space::kConst) {
    if (address & kSharedWindow)
      space = ptx::Space::kShared;
    else if (address & kLocalWindow)
      space = ptx::Space::kLocal;
    else if (address & kParamWindow)
      space = ptx::Space::kParam;
    address &= ~kWindows;
  }
  if (address & (bytes - 1))
    fault(warp, i, lane, cudaErrorMisalignedAddress,
          "misaligned " + std::string(verb(access)) + " of " + std::to_string(bytes) + " bytes at " +
              hex(address));
  switch (space) {
    case ptx::Space::kShared:
      return resolve_shared(warp, i, lane, address, bytes, access);
    case ptx::Space::kLocal:
      return resolve_local(warp, i, lane, address, bytes);
    case ptx::Space::kParam:
      return resolve_param(warp, i, lane, address, bytes, access);
    default:
      return resolve_global(warp, i, lane, address, bytes, access);
  }
}

}  // namespace tramontane::emulator
