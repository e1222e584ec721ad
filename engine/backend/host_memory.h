// The host's memory, as Linux tells. Any thread.
#pragma once

#include <cstdint>

namespace tramontane {

// Bytes that this process may still take from the host: MemAvailable of /proc/meminfo, or less under a
// control group's limit. 0: cannot tell.
uint64_t host_available_bytes();

}  // namespace tramontane
