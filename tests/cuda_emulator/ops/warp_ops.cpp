// Instructions by which the lanes of a warp look at each other: shfl, vote, match, redux, activemask,
// bar.warp.
#include <algorithm>
#include <limits>

#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

// Waits for the lanes that the lanes here name in their member masks. False: not all are there yet.
bool members_arrived(Warp& warp, const Instruction& i, LaneMask mask, Operand member_mask) {
  const u32* members = lanes<const u32>(warp, member_mask);
  LaneMask needed = 0;
  for_each_lane(mask, [&](int lane) {
    if (!(members[lane] >> lane & 1))
      fault(warp, i, lane, cudaErrorLaunchFailure, "a lane that is not in its own member mask");
    needed |= members[lane];
  });
  return lanes_arrived(warp, i, mask, needed);
}

enum class Shuffle { kUp, kDown, kButterfly, kIndex };

struct Source {
  int lane;
  bool in_range;
};

template <Shuffle kMode>
Source shuffle_source(int lane, u32 b, u32 c) {
  const u32 clamp = c & 31, segment = c >> 8 & 31, own = static_cast<u32>(lane);
  const u32 max_lane = (own & segment) | (clamp & ~segment);
  const u32 min_lane = own & segment;
  b &= 31;
  int from = 0;
  bool in_range = false;
  if constexpr (kMode == Shuffle::kUp) {
    from = lane - static_cast<int>(b);
    in_range = from >= static_cast<int>(max_lane);
  } else {
    from = static_cast<int>(kMode == Shuffle::kDown        ? own + b
                            : kMode == Shuffle::kButterfly ? own ^ b
                                                           : min_lane | (b & ~segment));
    in_range = from <= static_cast<int>(max_lane);
  }
  return {in_range ? from : lane, in_range};
}

// d|p, a, b, c, member mask
template <Shuffle kMode>
void shuffle(Warp& warp, const Instruction& i, LaneMask mask) {
  if (!members_arrived(warp, i, mask, i.operands[5])) return;
  const u32* a = lanes<const u32>(warp, i.operands[2]);
  const u32* b = lanes<const u32>(warp, i.operands[3]);
  const u32* c = lanes<const u32>(warp, i.operands[4]);
  u32 result[kLanes]{};
  LaneMask in_range = 0;
  for_each_lane(mask, [&](int lane) {
    const Source source = shuffle_source<kMode>(lane, b[lane], c[lane]);
    if (!(mask >> source.lane & 1))
      fault(warp, i, lane, cudaErrorLaunchFailure,
            "shuffle from lane " + std::to_string(source.lane) + ", which does not take part");
    result[lane] = a[source.lane];
    in_range |= static_cast<LaneMask>(source.in_range) << lane;
  });
  write_operand<u32>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
  write_predicate(warp, i.operands[1], mask, in_range);
}

enum class Vote { kAll, kAny, kUniform, kBallot };

template <Vote kMode>
void vote(Warp& warp, const Instruction& i, LaneMask mask) {
  if (!members_arrived(warp, i, mask, i.operands[2])) return;
  const u32* members = lanes<const u32>(warp, i.operands[2]);
  const LaneMask p = predicate(warp, i.operands[1]);
  if constexpr (kMode == Vote::kBallot) {
    write_operand<u32>(warp, i.operands[0], mask, [&](int lane) { return p & mask & members[lane]; });
  } else {
    LaneMask result = 0;
    for_each_lane(mask, [&](int lane) {
      const LaneMask set = members[lane] & mask;
      const bool all = (p & set) == set, any = (p & set) != 0;
      const bool yes = kMode == Vote::kAll ? all : kMode == Vote::kAny ? any : all || !any;
      result |= static_cast<LaneMask>(yes) << lane;
    });
    write_predicate(warp, i.operands[0], mask, result);
  }
}

template <class T>
LaneMask lanes_with(const T* a, T value, LaneMask set) {
  LaneMask result = 0;
  for_each_lane(set, [&](int lane) { result |= static_cast<LaneMask>(a[lane] == value) << lane; });
  return result;
}

// match.any: d, a, member mask; match.all: d|p, a, member mask
template <class T, bool kAll>
void match(Warp& warp, const Instruction& i, LaneMask mask) {
  const Operand member_mask = i.operands[kAll ? 3 : 2];
  if (!members_arrived(warp, i, mask, member_mask)) return;
  const u32* members = lanes<const u32>(warp, member_mask);
  const T* a = lanes<const T>(warp, i.operands[kAll ? 2 : 1]);
  u32 result[kLanes]{};
  LaneMask all = 0;
  for_each_lane(mask, [&](int lane) {
    const LaneMask set = members[lane] & mask;
    result[lane] = lanes_with(a, a[lane], set);
    if (kAll && result[lane] != set) result[lane] = 0;
    all |= static_cast<LaneMask>(result[lane] == set) << lane;
  });
  write_operand<u32>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
  if constexpr (kAll) write_predicate(warp, i.operands[1], mask, all);
}

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return static_cast<T>(u32(a) + u32(b));
  }
};
struct Lowest {
  template <class T>
  T operator()(T a, T b) const {
    return std::min(a, b);
  }
};
struct Highest {
  template <class T>
  T operator()(T a, T b) const {
    return std::max(a, b);
  }
};
struct And {
  template <class T>
  T operator()(T a, T b) const {
    return a & b;
  }
};
struct Or {
  template <class T>
  T operator()(T a, T b) const {
    return a | b;
  }
};
struct Xor {
  template <class T>
  T operator()(T a, T b) const {
    return a ^ b;
  }
};

template <class Op, class T>
void reduce(Warp& warp, const Instruction& i, LaneMask mask) {
  if (!members_arrived(warp, i, mask, i.operands[2])) return;
  const u32* members = lanes<const u32>(warp, i.operands[2]);
  const T* a = lanes<const T>(warp, i.operands[1]);
  T result[kLanes]{};
  for_each_lane(mask, [&](int lane) {
    const LaneMask set = members[lane] & mask;
    T value = a[__builtin_ctz(set)];
    for_each_lane(set & (set - 1), [&](int other) { value = Op()(value, a[other]); });
    result[lane] = value;
  });
  write_operand<T>(warp, i.operands[0], mask, [&](int lane) { return result[lane]; });
}

void sync_warp(Warp& warp, const Instruction& i, LaneMask mask) {
  if (members_arrived(warp, i, mask, i.operands[0])) ++warp.clock.sync;
}

void active_mask(Warp& warp, const Instruction& i, LaneMask mask) {
  write_operand<u32>(warp, i.operands[0], mask, [&](int) { return mask; });
}

void elect(Warp& warp, const Instruction& i, LaneMask mask) {
  if (!members_arrived(warp, i, mask, i.operands[2])) return;
  const u32 leader = static_cast<u32>(__builtin_ctz(mask));
  write_operand<u32>(warp, i.operands[0], mask, [&](int) { return leader; });
  write_predicate(warp, i.operands[1], mask, 1u << leader);
}

}  // namespace

void add_warp_forms(FormTable& t) {
  t.add("shfl.sync.up.b32", {&shuffle<Shuffle::kUp>, "4?=4444"});
  t.add("shfl.sync.down.b32", {&shuffle<Shuffle::kDown>, "4?=4444"});
  t.add("shfl.sync.bfly.b32", {&shuffle<Shuffle::kButterfly>, "4?=4444"});
  t.add("shfl.sync.idx.b32", {&shuffle<Shuffle::kIndex>, "4?=4444"});
  // Compilers write ".sync" first, hand-written PTX often last.
  for (const auto& [before, after] : {std::pair<std::string, std::string>{".sync", ""}, {"", ".sync"}}) {
    t.add("vote" + before + ".all" + after + ".pred", {&vote<Vote::kAll>, "p=p4"});
    t.add("vote" + before + ".any" + after + ".pred", {&vote<Vote::kAny>, "p=p4"});
    t.add("vote" + before + ".uni" + after + ".pred", {&vote<Vote::kUniform>, "p=p4"});
    t.add("vote" + before + ".ballot" + after + ".b32", {&vote<Vote::kBallot>, "4=p4"});
  }
  t.add("match.any.sync.b32", {&match<u32, false>, "4=44"});
  t.add("match.any.sync.b64", {&match<u64, false>, "4=84"});
  t.add("match.all.sync.b32", {&match<u32, true>, "4?=44"});
  t.add("match.all.sync.b64", {&match<u64, true>, "4?=84"});
  t.add("redux.sync.add.u32", {&reduce<Sum, u32>, "4=44"});
  t.add("redux.sync.add.s32", {&reduce<Sum, s32>, "4=44"});
  t.add("redux.sync.min.u32", {&reduce<Lowest, u32>, "4=44"});
  t.add("redux.sync.min.s32", {&reduce<Lowest, s32>, "4=44"});
  t.add("redux.sync.max.u32", {&reduce<Highest, u32>, "4=44"});
  t.add("redux.sync.max.s32", {&reduce<Highest, s32>, "4=44"});
  t.add("redux.sync.and.b32", {&reduce<And, u32>, "4=44"});
  t.add("redux.sync.or.b32", {&reduce<Or, u32>, "4=44"});
  t.add("redux.sync.xor.b32", {&reduce<Xor, u32>, "4=44"});
  t.add("bar.warp.sync", {&sync_warp, "=4"});
  t.add("activemask.b32", {&active_mask, "4="});
  t.add("elect.sync", {&elect, "4?=4"});
}

}  // namespace tramontane::emulator
