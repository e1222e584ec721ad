// Branches, exits, barriers of the block, traps, and the calls that the CUDA runtime answers itself.
#include "tests/cuda_emulator/ops/control.h"

#include "tests/cuda_emulator/ops/forms.h"
#include "tests/cuda_emulator/options.h"

namespace tramontane::emulator {
namespace {

constexpr u32 kSlice = 20'000;

// Loops may wait for other warps or lanes: after a while those get their turn.
void count_iteration(Warp& warp, const Instruction& i) {
  if (warp.slice-- > 0) return;
  warp.slice = kSlice;
  warp.stop = true;
  warp.rotate = !warp.groups.empty();
  if (++warp.slices > options().watchdog / kSlice)
    fault(warp, i, __builtin_ctz(warp.mask), cudaErrorLaunchTimeout, "no progress: a loop without end");
}

void nothing(Warp&, const Instruction&, LaneMask) {}

// A fence of the device's scope: what the block wrote is there for others to read.
void publish(Warp& warp, const Instruction&, LaneMask) {
  ++warp.block->fences.passed;
}

u32 uniform(const Warp& warp, const Instruction& i, LaneMask mask, Operand operand, const char* what) {
  const u32* values = lanes<const u32>(warp, operand);
  const u32 value = values[__builtin_ctz(mask)];
  for_each_lane(mask, [&](int lane) {
    if (values[lane] != value)
      fault(warp, i, lane, cudaErrorLaunchFailure, std::string("lanes give different ") + what + "s");
  });
  return value;
}

// Operands: (result) id (count) (predicate), where the form has them; aux says which form it is.
void barrier(Warp& warp, const Instruction& i, LaneMask mask) {
  if (!lanes_arrived(warp, i, mask, warp.live)) return;
  const bool reduces = i.aux >= kPopc;
  const u32 id_at = reduces ? 1 : 0;
  const u32 id = uniform(warp, i, mask, i.operands[id_at], "barrier");
  if (id >= 16)
    fault(warp, i, __builtin_ctz(mask), cudaErrorLaunchFailure,
          "barrier " + std::to_string(id) + " does not exist");
  Barrier& state = warp.block->barriers[id];
  const bool has_count = i.count > id_at + (reduces ? 2u : 1u);
  const u32 expected = has_count ? uniform(warp, i, mask, i.operands[id_at + 1], "thread count") : 0;
  if (expected % kLanes || (has_count && expected == 0))
    fault(warp, i, __builtin_ctz(mask), cudaErrorLaunchFailure,
          "barrier for " + std::to_string(expected) + " threads, no multiple of a warp");
  if (state.in_use && state.expected != expected)
    fault(warp, i, __builtin_ctz(mask), cudaErrorLaunchFailure,
          "warps give different thread counts for one barrier");
  state.in_use = true;
  state.expected = expected;
  if (reduces) {
    const LaneMask p = predicate(warp, i.operands[i.count - 1u]) & mask;
    state.popcount += static_cast<u32>(__builtin_popcount(p));
    state.all = state.all && p == mask;
    state.any = state.any || p != 0;
  }
  if (i.aux == kArrive) {
    state.arrived_warps.push_back(warp.index);
    return;
  }
  warp.barrier = static_cast<int>(id);
  warp.barrier_instruction = &i;
  warp.stop = true;
}

void trap(Warp& warp, const Instruction& i, LaneMask mask) {
  fault(warp, i, __builtin_ctz(mask), cudaErrorLaunchFailure, "trap");
}

}  // namespace

void branch(Warp& warp, const Instruction& i, LaneMask mask) {
  const Instruction& target = warp.kernel->code[i.target];
  if (target.handler == &exit_lanes && target.predicate < 0) return exit_lanes(warp, target, mask);
  if (i.target < warp.pc) count_iteration(warp, i);
  const LaneMask rest = warp.mask & ~mask;
  if (!rest) {
    warp.pc = i.target;
    return;
  }
  const bool taken_first = i.target < warp.pc;
  const LaneGroup taken{i.target, mask, false}, fallen{warp.pc, rest, false};
  const LaneGroup& first = taken_first ? taken : fallen;
  const LaneGroup& later = taken_first ? fallen : taken;
  warp.groups.push_back(later);
  warp.limit = std::min(warp.limit, later.pc);
  warp.pc = first.pc;
  warp.mask = first.mask;
}

void branch_indexed(Warp& warp, const Instruction& i, LaneMask mask) {
  const std::vector<u32>& table = warp.kernel->branch_tables[i.aux];
  const u32* index = lanes<const u32>(warp, i.operands[0]);
  LaneGroup rest{warp.pc, warp.mask & ~mask, false};
  if (rest.mask) warp.groups.push_back(rest);
  for_each_lane(mask, [&](int lane) {
    if (index[lane] >= table.size())
      fault(warp, i, lane, cudaErrorIllegalInstruction, "branch index out of range");
    warp.groups.push_back({table[index[lane]], 1u << lane, false});
  });
  warp.mask = 0;
  warp.limit = 0;
}

void exit_lanes(Warp& warp, const Instruction&, LaneMask mask) {
  for (const LaneGroup& group : warp.groups)
    if (group.blocked && (group.needed & mask) && options().synccheck)
      fault(warp, warp.kernel->code[group.pc], __builtin_ctz(group.mask), cudaErrorLaunchFailure,
            "divergent synchronisation: lanes wait here for others, which exit without arriving;");
  warp.live &= ~mask;
  warp.mask &= ~mask;
  for (LaneGroup& group : warp.groups) group.blocked = false;  // they may have waited for these lanes
  if (!warp.mask) warp.limit = 0;
}

void unsupported(Warp& warp, const Instruction& i, LaneMask mask) {
  fault(warp, i, __builtin_ctz(mask), cudaErrorIllegalInstruction,
        "instruction that the emulator does not know");
}

void add_control_forms(FormTable& t) {
  for (const char* name :
       {"bar.sync", "bar.cta.sync", "barrier.sync", "barrier.sync.aligned", "barrier.cta.sync.aligned"})
    t.add(name, {&barrier, "=4o", kWait});
  for (const char* name : {"bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.arrive.aligned"})
    t.add(name, {&barrier, "=44", kArrive});
  for (const std::string prefix : {"bar.red.", "bar.cta.red.", "barrier.red.", "barrier.cta.red."})
    for (const std::string aligned : {"", "aligned."}) {
      t.add(prefix + "popc." + aligned + "u32", {&barrier, "4=4p", kPopc});
      t.add(prefix + "and." + aligned + "pred", {&barrier, "p=4p", kAnd});
      t.add(prefix + "or." + aligned + "pred", {&barrier, "p=4p", kOr});
    }
  t.add("membar.cta", {&nothing, "="});
  for (const std::string scope : {"gl", "sys"}) t.add("membar." + scope, {&publish, "="});
  for (const std::string order : {"fence.", "fence.acq_rel.", "fence.sc."}) {
    for (const std::string scope : {"cta", "cluster"}) t.add(order + scope, {&nothing, "="});
    for (const std::string scope : {"gpu", "sys"}) t.add(order + scope, {&publish, "="});
  }
  t.add("nanosleep.u32", {&nothing, "=4"});
  t.add("griddepcontrol.wait", {&nothing, "="});
  t.add("griddepcontrol.launch_dependents", {&nothing, "="});
  t.add("trap", {&trap, "="});
  t.add("brkpt", {&trap, "="});
}

}  // namespace tramontane::emulator
