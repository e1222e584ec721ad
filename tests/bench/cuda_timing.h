// How launchers of cuda/ are timed: as a CUDA graph of many launches over many copies of their weights,
// between two events.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/launch.h"
#include "engine/backend/tensor.h"

namespace tramontane::cuda {

// What the device could do at most, of its own attributes; printed first.
struct DeviceLimits {
  std::string name;
  double memory_gb_s = 0;  // memory clock, both edges, times the bus
  size_t l2_bytes = 0;
};
// Throws std::runtime_error when there is no device.
DeviceLimits device_limits();

// Whether CUDA is the PTX emulator, whose times say nothing of a GPU.
bool is_emulator();

// Device memory filled with random bytes below 0x3c: as BF16, F16 and F32 they are small positive numbers, as
// codes any that there are.
Buffer random_device_bytes(size_t bytes);
Buffer zeroed_device_bytes(size_t bytes);
Buffer device_copy(const void* host, size_t bytes);
Buffer device_integers(const std::vector<int32_t>& values);

// Launches the operation on one of the copies of its data, which it owns.
using Launch = std::function<void(Stream, size_t copy)>;

// One thing to time.
struct Case {
  std::string name;
  double bytes = 0;  // that the launch must at least read and write
  double flop = 0;
  size_t copies = 1;  // so many that the data of all of them overflows L2
  std::function<Launch()> make;
};

// Captures launches into a graph and times its replays.
class TimedGraph {
 public:
  TimedGraph(const Case& timed, const Launch& launch);
  ~TimedGraph();
  TimedGraph(const TimedGraph&) = delete;
  TimedGraph& operator=(const TimedGraph&) = delete;

  // Seconds of one launch, the mean over a replay.
  double run();

 private:
  cudaStream_t stream_ = nullptr;
  cudaGraphExec_t graph_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  size_t launches_;
};

}  // namespace tramontane::cuda
