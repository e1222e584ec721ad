#include "tests/cuda_emulator/runtime/occupancy.h"

#include <algorithm>

#include "tests/cuda_emulator/runtime/device.h"

namespace tramontane::emulator {
namespace {

// Of every device here: a multiprocessor has four parts, each with its share of the registers; a warp gets
// its own in units of 256, a block its shared memory in units of 128 bytes.
constexpr int kParts = 4;
constexpr int kRegisterUnit = 256;
constexpr std::size_t kSharedUnit = 128;

int warps_by_registers(Function& function, int all) {
  const int units = (static_cast<int>(function.registers()) * kLanes + kRegisterUnit - 1) / kRegisterUnit;
  return all / kParts / (units * kRegisterUnit) * kParts;
}

}  // namespace

int most_threads(Function& function) {
  const cudaDeviceProp& device = device_properties();
  const int by_registers = warps_by_registers(function, device.regsPerBlock) * kLanes;
  return std::min(
      {static_cast<int>(function.kernel()->max_threads), device.maxThreadsPerBlock, by_registers});
}

int blocks_per_multiprocessor(Function& function, int threads, std::size_t dynamic_shared) {
  const cudaDeviceProp& device = device_properties();
  if (threads > most_threads(function) || dynamic_shared > function.max_dynamic_shared()) return 0;
  const int warps = (threads + kLanes - 1) / kLanes;
  const int by_threads = device.maxThreadsPerMultiProcessor / kLanes / warps;
  const int by_registers = warps_by_registers(function, device.regsPerMultiprocessor) / warps;
  const std::size_t shared =
      function.kernel()->static_shared + dynamic_shared + device.reservedSharedMemPerBlock;
  const std::size_t allocated = (shared + kSharedUnit - 1) / kSharedUnit * kSharedUnit;
  const int by_shared = allocated ? static_cast<int>(device.sharedMemPerMultiprocessor / allocated)
                                  : device.maxBlocksPerMultiProcessor;
  return std::min({by_threads, by_registers, by_shared, device.maxBlocksPerMultiProcessor});
}

}  // namespace tramontane::emulator
