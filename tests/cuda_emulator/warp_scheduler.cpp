#include "tests/cuda_emulator/warp_scheduler.h"

#include <algorithm>

#include "tests/cuda_emulator/ops/control.h"
#include "tests/cuda_emulator/options.h"

namespace tramontane::emulator {
namespace {

std::string lane_list(LaneMask mask) {
  char text[16];
  std::snprintf(text, sizeof text, "%08x", mask);
  return text;
}

// All groups wait for lanes that cannot come any more: they wait elsewhere.
[[noreturn]] void report_absent_lanes(const Warp& warp) {
  const LaneGroup& group = warp.groups.front();
  const Instruction& i = warp.kernel->code[group.pc];
  fault(warp, i, __builtin_ctz(group.mask), cudaErrorLaunchFailure,
        "divergent synchronisation: only lanes " + lane_list(group.mask) + " of " + lane_list(warp.live) +
            " wait here, the others never arrive;");
}

// Takes the group at `pc` out of the waiting ones, all its parts together.
LaneMask take_groups(Warp& warp, u32 pc) {
  LaneMask mask = 0;
  std::erase_if(warp.groups, [&](const LaneGroup& group) {
    if (group.blocked || group.pc != pc) return false;
    mask |= group.mask;
    return true;
  });
  return mask;
}

// The next group to run: the one that is furthest behind, so that lanes meet again where their paths do.
// After a slice ran out any may be next: the others may be what it waits for.
u32 choose_group(Warp& warp, std::mt19937_64& random) {
  std::vector<u32> ready;
  for (const LaneGroup& group : warp.groups)
    if (!group.blocked) ready.push_back(group.pc);
  if (ready.empty()) report_absent_lanes(warp);
  if (!warp.rotate) return *std::min_element(ready.begin(), ready.end());
  warp.rotate = false;
  return ready[random() % ready.size()];
}

// False when no lane is left.
bool reschedule(Warp& warp, std::mt19937_64& random) {
  if (warp.mask) warp.groups.push_back({warp.pc, warp.mask, false});
  warp.mask = 0;
  if (warp.groups.empty()) return false;
  warp.pc = choose_group(warp, random);
  warp.mask = take_groups(warp, warp.pc);
  warp.limit = ~0u;
  for (const LaneGroup& group : warp.groups)
    if (!group.blocked && group.pc > warp.pc) warp.limit = std::min(warp.limit, group.pc);
  return true;
}

void join_clocks(Block& block, const std::vector<u32>& waiting, const std::vector<u32>& arrived) {
  std::array<u32, 32> joint{};
  const auto collect = [&](u32 w) {
    for (std::size_t k = 0; k < joint.size(); ++k)
      joint[k] = std::max(joint[k], block.warps[w].clock.time[k]);
  };
  for (const u32 w : waiting) collect(w);
  for (const u32 w : arrived) collect(w);
  for (const u32 w : waiting) {
    block.warps[w].clock.time = joint;
    ++block.warps[w].clock.sync;
    ++block.warps[w].clock.time[w];
  }
  for (const u32 w : arrived) ++block.warps[w].clock.time[w];
}

void give_result(Warp& warp, const Barrier& barrier) {
  const Instruction& i = *warp.barrier_instruction;
  if (i.aux == kPopc)
    write_operand<u32>(warp, i.operands[0], warp.live, [&](int) { return barrier.popcount; });
  if (i.aux == kAnd) write_predicate(warp, i.operands[0], warp.live, barrier.all ? kAllLanes : 0);
  if (i.aux == kOr) write_predicate(warp, i.operands[0], warp.live, barrier.any ? kAllLanes : 0);
}

// A barrier of the whole block is one call of __syncthreads for all.
void require_one_place(const Block& block, const std::vector<u32>& waiting) {
  const Warp& first = block.warps[waiting.front()];
  for (const u32 w : waiting) {
    const Warp& warp = block.warps[w];
    if (warp.barrier_instruction == first.barrier_instruction) continue;
    fault(warp, *warp.barrier_instruction, __builtin_ctz(warp.live), cudaErrorLaunchFailure,
          "unequal barriers: warp " + std::to_string(first.index) + " waits at another one (" +
              describe(*first.kernel, *first.barrier_instruction) + ");");
  }
}

bool release(Block& block, int id, u32 live_warps) {
  Barrier& barrier = block.barriers[static_cast<std::size_t>(id)];
  std::vector<u32> waiting;
  for (const Warp& warp : block.warps)
    if (warp.live && warp.barrier == id) waiting.push_back(warp.index);
  if (waiting.empty()) return false;
  const std::size_t come = waiting.size() + barrier.arrived_warps.size();
  const std::size_t expected = barrier.expected ? barrier.expected / kLanes : live_warps;
  if (come < expected) return false;
  if (!barrier.expected && options().synccheck) require_one_place(block, waiting);
  join_clocks(block, waiting, barrier.arrived_warps);
  for (const u32 w : waiting) {
    give_result(block.warps[w], barrier);
    block.warps[w].barrier = -1;
  }
  barrier = {};
  return true;
}

}  // namespace

bool lanes_arrived(Warp& warp, const Instruction&, LaneMask here, LaneMask needed) {
  needed &= warp.live;
  if (!(needed & ~here)) return true;
  // Only by their own program counter can lanes that come later find these.
  const u32 pc = warp.pc - 1;
  const auto waiting = std::find_if(warp.groups.begin(), warp.groups.end(),
                                    [&](const LaneGroup& group) { return group.blocked && group.pc == pc; });
  if (waiting == warp.groups.end()) {
    warp.groups.push_back({pc, here, true, needed});
  } else {
    waiting->mask |= here;
    waiting->blocked = false;
  }
  warp.mask &= ~here;
  warp.limit = 0;
  return false;
}

void run_warp(Warp& warp, std::mt19937_64& random) {
  const Instruction* code = warp.kernel->code.data();
  warp.stop = false;
  if (warp.rotate) warp.limit = 0;
  while (!warp.stop) {
    if (warp.pc >= warp.limit) [[unlikely]]
      if (!reschedule(warp, random)) return;
    const Instruction& i = code[warp.pc++];
    LaneMask mask = warp.mask;
    if (i.predicate >= 0) {
      const LaneMask p = *reinterpret_cast<const LaneMask*>(warp.pools[Operand::kRegisters] + i.predicate);
      mask &= i.negated ? ~p : p;
      if (!mask) continue;
    }
    i.handler(warp, i, mask);
  }
}

bool release_barriers(Block& block) {
  const u32 live = static_cast<u32>(
      std::count_if(block.warps.begin(), block.warps.end(), [](const Warp& w) { return w.live != 0; }));
  bool any = false;
  for (int id = 0; id < 16; ++id) any |= release(block, id, live);
  return any;
}

void report_deadlock(const Block& block) {
  for (const Warp& warp : block.warps)
    if (warp.live && warp.barrier >= 0)
      fault(warp, *warp.barrier_instruction, __builtin_ctz(warp.live), cudaErrorLaunchFailure,
            "barrier " + std::to_string(warp.barrier) + " never completes: too few warps arrive;");
  throw Fault(cudaErrorLaunchFailure, "block deadlock");
}

}  // namespace tramontane::emulator
