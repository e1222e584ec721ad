// What this processor and the environment offer: asked once, at start-up. Any thread.
#pragma once

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

// Processors this process may use: its affinity mask, lessened by a cgroup v2 CPU quota (what `docker run
// --cpus` sets). At least 1.
int available_cores();

}  // namespace tramontane
