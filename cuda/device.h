// Which GPU there is and whether this program can use it. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace tramontane::cuda {

struct DeviceInfo {
  int index = 0;
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  uint64_t total_bytes = 0, free_bytes = 0;

  // "NVIDIA H100 80GB HBM3, compute capability 9.0, 79.6 of 80.0 GiB free"
  std::string to_string() const;
};

struct DeviceProbe {
  std::optional<DeviceInfo> device;
  std::string
      why_not;  // where there is none: "no CUDA driver", "… has compute capability 7.5, 8.0 is needed"
};

// Looks at device `index`. A device that can be used is made current for the calling thread, its context
// created. Never throws for what it finds: that is the answer.
DeviceProbe probe_device(int index);

}  // namespace tramontane::cuda
