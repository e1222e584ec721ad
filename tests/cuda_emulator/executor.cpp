#include "tests/cuda_emulator/executor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>

#include "tests/cuda_emulator/options.h"
#include "tests/cuda_emulator/warp_scheduler.h"

namespace tramontane::emulator {
namespace {

constexpr std::size_t kAlignment = 64;

// Host threads that perform a job together with the caller. Never destroyed: kernels may still run when the
// program ends.
class Workers {
 public:
  static Workers& instance() {
    static auto* workers = new Workers;
    return *workers;
  }

  void run(const std::function<void()>& job) {
    std::unique_lock lock(mutex_);
    job_ = &job;
    running_ = threads_.size();
    ++round_;
    start_.notify_all();
    lock.unlock();
    job();
    lock.lock();
    done_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  Workers() {
    const u32 wanted =
        options().threads ? options().threads : std::max(1u, std::thread::hardware_concurrency());
    for (u32 k = 1; k < wanted; ++k) threads_.emplace_back([this] { loop(); }).detach();
  }

  void loop() {
    u64 seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      const std::function<void()>& job = *job_;
      lock.unlock();
      job();
      lock.lock();
      if (--running_ == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  const std::function<void()>* job_ = nullptr;
  u64 round_ = 0;
  std::size_t running_ = 0;
};

u64 ticks() {
  return static_cast<u64>(std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1));
}

u64 special_value(const Warp& warp, Special special, u32 lane) {
  const Block& block = *warp.block;
  const Launch& launch = *block.launch;
  const u32 thread = warp.index * kLanes + lane;
  switch (special) {
    case Special::kTidX:
      return thread % launch.block.x;
    case Special::kTidY:
      return thread / launch.block.x % launch.block.y;
    case Special::kTidZ:
      return thread / launch.block.x / launch.block.y;
    case Special::kNtidX:
      return launch.block.x;
    case Special::kNtidY:
      return launch.block.y;
    case Special::kNtidZ:
      return launch.block.z;
    case Special::kCtaidX:
      return block.index.x;
    case Special::kCtaidY:
      return block.index.y;
    case Special::kCtaidZ:
      return block.index.z;
    case Special::kNctaidX:
      return launch.grid.x;
    case Special::kNctaidY:
      return launch.grid.y;
    case Special::kNctaidZ:
      return launch.grid.z;
    case Special::kLaneId:
      return lane;
    case Special::kWarpId:
      return warp.index;
    case Special::kNWarpId:
      return block.warps.size();
    case Special::kLaneMaskEq:
      return 1u << lane;
    case Special::kLaneMaskLt:
      return (1u << lane) - 1;
    case Special::kLaneMaskLe:
      return (2ull << lane) - 1;
    case Special::kLaneMaskGt:
      return ~((2ull << lane) - 1);
    case Special::kLaneMaskGe:
      return ~((1u << lane) - 1);
    case Special::kSmId:
      return 0;
    case Special::kNSmId:
      return 1;
    case Special::kGridId:
      return launch.id;
    case Special::kDynamicSharedSize:
      return launch.dynamic_shared;
    case Special::kTotalSharedSize:
      return launch.kernel->static_shared + launch.dynamic_shared;
    case Special::kClock:
    case Special::kClock64:
    case Special::kGlobalTimer:
      return ticks();
  }
  return 0;
}

bool is_wide(Special special) {
  return special == Special::kClock64 || special == Special::kGlobalTimer || special == Special::kGridId;
}

void set_specials(Warp& warp) {
  for (const auto& [special, offset] : warp.kernel->specials) {
    u8* at = warp.pools[Operand::kRegisters] + offset;
    for (u32 lane = 0; lane < kLanes; ++lane) {
      const u64 value = special_value(warp, special, lane);
      const u32 bytes = is_wide(special) ? 8 : 4;
      std::memcpy(at + bytes * lane, &value, bytes);
    }
  }
}

// Runs blocks one after the other; keeps their memory between them.
class BlockRunner {
 public:
  BlockRunner(const Launch& launch, FenceCounts fences, u64 seed) : launch_(launch), random_(seed) {
    block_.launch = &launch;
    block_.fences = fences;
    block_.threads = static_cast<u32>(launch.block.volume());
    block_.warps.resize((block_.threads + kLanes - 1) / kLanes);
    registers_.resize(launch.kernel->register_bytes * block_.warps.size() + kAlignment);
    order_.resize(block_.warps.size());
    std::iota(order_.begin(), order_.end(), 0u);
  }

  void run(u64 number) {
    block_.number = static_cast<u32>(number);
    block_.fences.passed = 0;
    block_.index = {static_cast<u32>(number % launch_.grid.x),
                    static_cast<u32>(number / launch_.grid.x % launch_.grid.y),
                    static_cast<u32>(number / launch_.grid.x / launch_.grid.y)};
    block_.shared.reset(launch_.kernel->static_shared + launch_.dynamic_shared,
                        options().racecheck || options().initcheck);
    block_.barriers = {};
    for (u32 w = 0; w < block_.warps.size(); ++w) start(w);
    while (std::any_of(block_.warps.begin(), block_.warps.end(), [](const Warp& w) { return w.live != 0; }))
      take_turns();
  }

 private:
  void start(u32 index) {
    Warp& warp = block_.warps[index];
    warp = Warp{};
    u8* base = registers_.data();
    base += (kAlignment - reinterpret_cast<std::uintptr_t>(base) % kAlignment) % kAlignment;
    warp.pools[Operand::kRegisters] = base + std::size_t{index} * launch_.kernel->register_bytes;
    warp.pools[Operand::kConstants] = const_cast<u8*>(launch_.kernel->constants.data());
    const u32 count = std::min<u32>(kLanes, block_.threads - index * kLanes);
    warp.live = warp.mask = count == kLanes ? kAllLanes : (1u << count) - 1;
    warp.limit = ~0u;
    warp.block = &block_;
    warp.kernel = launch_.kernel;
    warp.index = index;
    warp.slice = 20'000;
    warp.clock.time[index] = 1;
    set_specials(warp);
  }

  void take_turns() {
    std::shuffle(order_.begin(), order_.end(), random_);
    bool ran = false;
    for (const u32 w : order_) {
      Warp& warp = block_.warps[w];
      if (!warp.live || warp.barrier >= 0) continue;
      run_warp(warp, random_);
      ran = true;
    }
    if (!release_barriers(block_) && !ran) report_deadlock(block_);
  }

  const Launch& launch_;
  std::mt19937_64 random_;
  Block block_;
  std::vector<u8> registers_;
  std::vector<u32> order_;
};

// Every number below `count` once: begin + k * step, with a step that has no divisor in common with it.
struct BlockOrder {
  BlockOrder(u64 count, u64 seed) : count_(count) {
    std::mt19937_64 random(seed);
    begin_ = random() % count;
    do step_ = random() % count + 1;
    while (std::gcd(step_, count) != 1);
  }
  u64 operator[](u64 k) const {
    __extension__ typedef unsigned __int128 u128;
    return static_cast<u64>((begin_ + u128{k} * step_) % count_);
  }

 private:
  u64 count_, begin_, step_;
};

}  // namespace

void run_launch(const Launch& launch) {
  const u64 count = launch.grid.volume();
  const BlockOrder order(count, options().seed + launch.id);
  std::vector<std::atomic<u32>> signalled(
      options().racecheck && count > 1 && count <= GlobalRaces::kMostBlocks ? count : 0);
  std::atomic<u64> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::exception_ptr first;
  const std::function<void()> work = [&] {
    try {
      u64 k = next++;
      if (k >= count) return;
      BlockRunner runner(launch, {launch.id, signalled.empty() ? nullptr : signalled.data()},
                         options().seed * 0x9e3779b97f4a7c15ull + launch.id + k);
      for (; k < count && !failed; k = next++) runner.run(order[k]);
    } catch (...) {
      failed = true;
      const std::lock_guard lock(mutex);
      if (!first) first = std::current_exception();
    }
  };
  if (count == 1)
    work();
  else
    Workers::instance().run(work);
  if (first) std::rethrow_exception(first);
}

}  // namespace tramontane::emulator
