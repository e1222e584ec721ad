// What this processor and the environment offer: asked once, at start-up. Any thread.
#pragma once

#include <filesystem>
#include <vector>

namespace tramontane {

// Instruction sets that both the processor and the operating system (saved registers, XGETBV) support.
struct CpuFeatures {
  bool avx2 = false;        // AVX2, FMA and F16C
  bool avx512 = false;      // AVX-512 F, BW, VL and DQ, and everything in avx2
  bool avx512vnni = false;  // AVX-512 VNNI, and everything in avx512
  bool avx512bf16 = false;  // AVX-512 BF16, and everything in avx512vnni
  bool amx = false;         // AMX tiles, BF16 and INT8 products, and everything in avx512bf16
  bool intel = false;       // vendor "GenuineIntel"
};

// The first call asks Linux for the tile registers, which it gives a process only on request; refused, or on a
// kernel that does not know them, amx is false.
const CpuFeatures& cpu_features();

// Cores this process may use: those of its affinity mask, lessened by a cgroup v2 CPU quota (what `docker run
// --cpus` sets). At least 1. Hyperthreads share the units that products need: two threads on a core take tile
// products more than twice as long (cpu/README.md).
int available_cores();

// How many cores processors have, as `topology` says (Linux: /sys/devices/system/cpu, Documentation/admin-guide/cputopology.rst):
// cpuN/topology/core_cpus_list is the same for all processors of a core. One of which it says nothing counts as a core.
int count_cores(const std::vector<int>& processors, const std::filesystem::path& topology);

}  // namespace tramontane
