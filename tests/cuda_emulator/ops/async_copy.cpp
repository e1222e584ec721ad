// cp.async: performed as late as the program allows, at the wait. Until then the destination is poison.
#include <cstring>

#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

// Destination, source, size, optional size of the source: what is beyond is zeros.
void copy(Warp& warp, const Instruction& i, LaneMask mask) {
  const u32* source_sizes = i.operands[3].exists() ? lanes<const u32>(warp, i.operands[3]) : nullptr;
  const u32 bytes = lanes<const u32>(warp, i.operands[2])[__builtin_ctz(mask)];
  if (bytes != 4 && bytes != 8 && bytes != 16)
    fault(warp, i, __builtin_ctz(mask), cudaErrorIllegalInstruction,
          "cp.async of " + std::to_string(bytes) + " bytes");
  for_each_lane(mask, [&](int lane) {
    PendingCopy pending{lanes<const u64>(warp, i.operands[1])[lane] + static_cast<u64>(i.immediate2),
                        static_cast<u32>(lane_address(warp, i, i.operands[0], lane, i.immediate)),
                        bytes,
                        source_sizes ? source_sizes[lane] : bytes,
                        lane,
                        &i};
    if (pending.source_bytes > bytes)
      fault(warp, i, lane, cudaErrorIllegalInstruction, "cp.async with a source larger than the copy");
    if (pending.source & (bytes - 1))
      fault(warp, i, lane, cudaErrorMisalignedAddress, "cp.async from a misaligned address");
    // All checks are done where the copy begins; a destination that others still read is a race from here on.
    if (pending.source_bytes == bytes)
      resolve(warp, i, lane, pending.source, bytes, ptx::Space::kGlobal, Access::kRead);
    resolve(warp, i, lane, pending.destination, bytes, ptx::Space::kShared, Access::kWrite);
    warp.block->shared.poison(pending.destination, bytes);
    warp.open_copies.push_back(pending);
  });
}

void perform(Warp& warp, const PendingCopy& pending) {
  const Instruction& i = *pending.instruction;
  u8* to =
      resolve(warp, i, pending.lane, pending.destination, pending.bytes, ptx::Space::kShared, Access::kWrite);
  std::memset(to, 0, pending.bytes);
  u8 byte_by_byte[16];
  if (pending.source_bytes == pending.bytes) {
    std::memcpy(
        to, resolve(warp, i, pending.lane, pending.source, pending.bytes, ptx::Space::kGlobal, Access::kRead),
        pending.bytes);
    return;
  }
  for (u32 k = 0; k < pending.source_bytes; ++k)
    byte_by_byte[k] =
        *resolve(warp, i, pending.lane, pending.source + k, 1, ptx::Space::kGlobal, Access::kRead);
  std::memcpy(to, byte_by_byte, pending.source_bytes);
}

// Groups are each thread's own; here they are counted by warp, so all of its lanes must commit and wait
// together.
void require_all_live(const Warp& warp, const Instruction& i, LaneMask mask) {
  if (mask != warp.live)
    fault(warp, i, __builtin_ctz(mask), cudaErrorNotSupported,
          "cp.async groups in divergent code, which the emulator does not know");
}

void commit(Warp& warp, const Instruction& i, LaneMask mask) {
  require_all_live(warp, i, mask);
  warp.committed_copies.push_back(std::move(warp.open_copies));
  warp.open_copies.clear();
}

void wait_for_groups(Warp& warp, std::size_t pending_groups) {
  auto& groups = warp.committed_copies;
  while (groups.size() > pending_groups) {
    for (const PendingCopy& pending : groups.front()) perform(warp, pending);
    groups.erase(groups.begin());
  }
}

void wait_group(Warp& warp, const Instruction& i, LaneMask mask) {
  require_all_live(warp, i, mask);
  wait_for_groups(warp, static_cast<std::size_t>(i.immediate));
}

void wait_all(Warp& warp, const Instruction& i, LaneMask mask) {
  commit(warp, i, mask);
  wait_for_groups(warp, 0);
}

}  // namespace

void add_async_copy_forms(FormTable& t) {
  t.add("cp.async.shared.global", {&copy, "=mm4o"});
  t.add("cp.async.commit_group", {&commit, "="});
  t.add("cp.async.wait_group", {&wait_group, "=i"});
  t.add("cp.async.wait_all", {&wait_all, "="});
}

}  // namespace tramontane::emulator
