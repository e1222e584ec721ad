// ld, st, prefetch, cvta, and mov between vectors of registers and wide ones.
#include <cstring>

#include "tests/cuda_emulator/ops/forms.h"

namespace tramontane::emulator {
namespace {

using ptx::Space;

// Whether all lanes access consecutive items of global memory that may be touched at once.
bool is_contiguous(Warp& warp, const Instruction& i, Operand address, LaneMask mask, u32 bytes, Access access,
                   u64& begin) {
  if (mask != kAllLanes || i.space != Space::kGlobal || !i.wide_address) return false;
  const u64* a = lanes<u64>(warp, address);
  begin = a[0] + static_cast<u64>(i.immediate);
  if (begin & (kWindows | (bytes - 1))) return false;
  u64 wrong = 0;
  EMULATOR_LANES(lane) wrong |= (a[lane] - a[0]) ^ static_cast<u64>(lane) * bytes;
  return wrong == 0 && resolve_range(warp, i, begin, u64{bytes} * kLanes, access);
}

// ld: destinations, then the address.
template <class E, int kCount>
void load(Warp& warp, const Instruction& i, LaneMask mask) {
  constexpr u32 kBytes = sizeof(E) * kCount;
  Held<E>* d[kCount];
  Held<E> unused[kLanes];
  for (int k = 0; k < kCount; ++k)
    d[k] = i.operands[k].exists() ? lanes<Held<E>>(warp, i.operands[k]) : unused;
  const Operand address = i.operands[kCount];
  u64 begin = 0;
  if (is_contiguous(warp, i, address, mask, kBytes, Access::kRead, begin)) {
    const E* source = reinterpret_cast<const E*>(DeviceMemory::instance().host(begin));
    for (int k = 0; k < kCount; ++k) EMULATOR_LANES(lane) d[k][lane] = source[lane * kCount + k];
    return;
  }
  u64 at[kLanes];  // a destination may hold the address
  for_each_lane(mask, [&](int lane) { at[lane] = lane_address(warp, i, address, lane, i.immediate); });
  for_each_lane(mask, [&](int lane) {
    E item[kCount];
    std::memcpy(item, resolve(warp, i, lane, at[lane], kBytes, i.space, Access::kRead), kBytes);
    for (int k = 0; k < kCount; ++k) d[k][lane] = item[k];
  });
}

// st: the address, then the values.
template <class E, int kCount>
void store(Warp& warp, const Instruction& i, LaneMask mask) {
  constexpr u32 kBytes = sizeof(E) * kCount;
  const Held<E>* values[kCount];
  for (int k = 0; k < kCount; ++k) values[k] = lanes<const Held<E>>(warp, i.operands[k + 1]);
  u64 begin = 0;
  if (is_contiguous(warp, i, i.operands[0], mask, kBytes, Access::kWrite, begin)) {
    E* d = reinterpret_cast<E*>(DeviceMemory::instance().host(begin));
    for (int k = 0; k < kCount; ++k)
      EMULATOR_LANES(lane) d[lane * kCount + k] = static_cast<E>(values[k][lane]);
    return;
  }
  for_each_lane(mask, [&](int lane) {
    E item[kCount];
    for (int k = 0; k < kCount; ++k) item[k] = static_cast<E>(values[k][lane]);
    const u64 at = lane_address(warp, i, i.operands[0], lane, i.immediate);
    std::memcpy(resolve(warp, i, lane, at, kBytes, i.space, Access::kWrite), item, kBytes);
  });
}

template <class T>
struct AddConstant {
  static void run(Warp& warp, const Instruction& i, LaneMask mask) {
    const T* a = lanes<const T>(warp, i.operands[1]);
    const T window = static_cast<T>(u64{i.aux} << 60);
    write_operand<T>(warp, i.operands[0], mask, [&](int lane) { return static_cast<T>(a[lane] + window); });
  }
};

// cvta: a window's number is added for generic addresses, and taken away (added negated, in 4 bits) for
// ".to".
void add_address_conversion(FormTable& t, const std::string& space, u32 window) {
  const Handler handler = &AddConstant<u64>::run;
  for (const char* type : {"u64", "b64"}) {
    t.add("cvta." + space + "." + type, {handler, "8=8", window});
    t.add("cvta.to." + space + "." + type, {handler, "8=8", (16 - window) & 15});
  }
}

// mov.b64 d, {a, b} and the like: parts from low to high.
template <class Part, class Whole>
void pack(Warp& warp, const Instruction& i, LaneMask mask) {
  constexpr int kCount = sizeof(Whole) / sizeof(Part);
  const Part* parts[kCount];
  for (int k = 0; k < kCount; ++k) parts[k] = lanes<const Part>(warp, i.operands[k + 1]);
  write_operand<Whole>(warp, i.operands[0], mask, [&](int lane) {
    Whole whole = 0;
    for (int k = 0; k < kCount; ++k) whole |= static_cast<Whole>(parts[k][lane]) << (8 * sizeof(Part) * k);
    return whole;
  });
}
template <class Part, class Whole>
void unpack(Warp& warp, const Instruction& i, LaneMask mask) {
  constexpr int kCount = sizeof(Whole) / sizeof(Part);
  Whole whole[kLanes];
  std::memcpy(whole, lanes<const Whole>(warp, i.operands[kCount]), sizeof whole);
  for (int k = 0; k < kCount; ++k)
    write_operand<Part>(warp, i.operands[k], mask,
                        [&](int lane) { return static_cast<Part>(whole[lane] >> (8 * sizeof(Part) * k)); });
}

// A register wider than the type it is used as: sign or zeros above.
template <class D, class S>
void resize(Warp& warp, const Instruction& i, LaneMask mask) {
  const S* a = lanes<const S>(warp, i.operands[1]);
  write_operand<D>(warp, i.operands[0], mask, [&](int lane) { return static_cast<D>(a[lane]); });
}

void nothing(Warp&, const Instruction&, LaneMask) {}

template <class E, int kCount>
void add_access(FormTable& t, const std::string& vector, const std::string& type) {
  const std::string values(kCount, slot_of<E>());
  for (const std::string space : {"", ".global", ".shared", ".local", ".param", ".const"}) {
    t.add("ld" + space + vector + "." + type, {&load<E, kCount>, values + "=m"});
    if (space != ".const") t.add("st" + space + vector + "." + type, {&store<E, kCount>, "=m" + values});
  }
}

template <class E>
void add_type(FormTable& t, std::initializer_list<const char*> types) {
  for (const std::string type : types) {
    add_access<E, 1>(t, "", type);
    add_access<E, 2>(t, ".v2", type);
    if constexpr (sizeof(E) <= 4) add_access<E, 4>(t, ".v4", type);
  }
}

}  // namespace

void add_memory_forms(FormTable& t) {
  add_type<u8>(t, {"u8", "b8"});
  add_type<s8>(t, {"s8"});
  add_type<u16>(t, {"u16", "b16"});
  add_type<s16>(t, {"s16"});
  add_type<u32>(t, {"u32", "b32", "f32"});
  add_type<s32>(t, {"s32"});
  add_type<u64>(t, {"u64", "b64", "f64", "s64"});
  add_address_conversion(t, "global", 0);
  add_address_conversion(t, "const", 0);
  add_address_conversion(t, "shared", 1);
  add_address_conversion(t, "local", 2);
  add_address_conversion(t, "param", 4);
  t.add("mov.pack.b32.2", {&pack<u16, u32>, "4=22"});
  t.add("mov.pack.b64.2", {&pack<u32, u64>, "8=44"});
  t.add("mov.pack.b64.4", {&pack<u16, u64>, "8=2222"});
  t.add("mov.unpack.b32.2", {&unpack<u16, u32>, "22=4"});
  t.add("mov.unpack.b64.2", {&unpack<u32, u64>, "44=8"});
  t.add("mov.unpack.b64.4", {&unpack<u16, u64>, "2222=8"});
  t.add("resize.2.4", {&resize<u32, u16>, "4=2"});
  t.add("resize.b.4", {&resize<s32, s16>, "4=2"});
  t.add("resize.2.8", {&resize<u64, u16>, "8=2"});
  t.add("resize.b.8", {&resize<s64, s16>, "8=2"});
  t.add("resize.4.8", {&resize<u64, u32>, "8=4"});
  t.add("resize.c.8", {&resize<s64, s32>, "8=4"});
  t.add("resize.4.2", {&resize<u16, u32>, "2=4"});
  t.add("resize.8.2", {&resize<u16, u64>, "2=8"});
  t.add("resize.8.4", {&resize<u32, u64>, "4=8"});
  for (const char* hint : {"prefetch.global", "prefetchu", "prefetch.local", "prefetch", "discard.global"})
    t.add(hint, {&nothing, "=m"});
}

}  // namespace tramontane::emulator
