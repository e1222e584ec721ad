// What this machine can do at most, measured by small loops: the figures that kernels are compared with.
#pragma once

#include "cpu/thread_pool.h"

namespace tramontane {

struct MachineLimits {
  double read_gb_s = 0;       // memory read, 4 streams a thread, 1 GB/s = 1e9 bytes/s
  double fma_gflop_s = 0;     // FP32 FMA in registers, widest vectors
  double dpbf16_gflop_s = 0;  // vdpbf16ps in registers; 0 without AVX-512 BF16
  double amx_gflop_s = 0;     // tdpbf16ps in registers, zeros (other numbers draw more power); 0 without AMX
};

// Takes about half a second. All threads of the pool at once; best of several runs.
MachineLimits measure_machine_limits(ThreadPool& pool);

}  // namespace tramontane
