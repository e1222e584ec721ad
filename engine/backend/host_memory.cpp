#include "engine/backend/host_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace tramontane {
namespace {

// The number in a file that holds nothing else (control groups), or nothing: "max", no such file.
bool read_number(const char* path, uint64_t& value) {
  std::ifstream file(path);
  return static_cast<bool>(file >> value);
}

}  // namespace

uint64_t host_available_bytes() {
  uint64_t available = 0;
  std::ifstream meminfo("/proc/meminfo");
  for (std::string key; meminfo >> key;) {
    uint64_t kib = 0;
    if (key == "MemAvailable:" && meminfo >> kib) available = kib * 1024;
    meminfo.ignore(256, '\n');
  }
  // Control groups, version 2 as a container sees its own (what files are mapped is counted as used there
  // although it can be dropped).
  uint64_t limit = 0, used = 0;
  if (read_number("/sys/fs/cgroup/memory.max", limit) && read_number("/sys/fs/cgroup/memory.current", used)) {
    uint64_t droppable = 0;
    std::ifstream stat("/sys/fs/cgroup/memory.stat");
    std::string key;
    for (uint64_t value = 0; stat >> key >> value;) {
      if (key == "inactive_file" || key == "active_file") droppable += value;
    }
    used -= std::min(used, droppable);
    const uint64_t room = limit - std::min(limit, used);
    available = available == 0 ? room : std::min(available, room);
  }
  return available;
}

}  // namespace tramontane
