#include "cpu/cpu_features.h"

#include <cpuid.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <set>
#include <string>
#include <thread>

namespace tramontane {
namespace {

struct Cpuid {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Cpuid cpuid(unsigned leaf, unsigned subleaf = 0) {
  Cpuid r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool has_bit(unsigned word, int bit) {
  return (word >> bit & 1u) != 0;
}

// Extended control register 0: which register files the operating system saves. Only valid where CPUID says
// OSXSAVE.
uint64_t saved_registers() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// The tile registers' data for this process, threads to come included (Linux, Documentation/arch/x86/xstate).
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuFeatures detect() {
  CpuFeatures found;
  const Cpuid vendor = cpuid(0);
  found.intel = vendor.ebx == signature_INTEL_ebx && vendor.edx == signature_INTEL_edx &&
                vendor.ecx == signature_INTEL_ecx;
  const Cpuid basic = cpuid(1);
  if (!has_bit(basic.ecx, 27)) return found;  // OSXSAVE
  const uint64_t saved = saved_registers();
  const bool ymm = (saved & 0x6) == 0x6, zmm = (saved & 0xe6) == 0xe6;
  const Cpuid extended = cpuid(7, 0);
  const bool fma = has_bit(basic.ecx, 12), f16c = has_bit(basic.ecx, 29);
  found.avx2 = ymm && fma && f16c && has_bit(extended.ebx, 5);
  const bool f = has_bit(extended.ebx, 16), dq = has_bit(extended.ebx, 17);
  const bool bw = has_bit(extended.ebx, 30), vl = has_bit(extended.ebx, 31);
  found.avx512 = found.avx2 && zmm && f && dq && bw && vl;
  found.avx512vnni = found.avx512 && has_bit(extended.ecx, 11);
  found.avx512bf16 = found.avx512vnni && has_bit(cpuid(7, 1).eax, 5);
  const bool tile_state = (saved & 0x60000) == 0x60000;
  const bool bf16 = has_bit(extended.edx, 22), tiles = has_bit(extended.edx, 24),
             int8 = has_bit(extended.edx, 25);
  found.amx = found.avx512bf16 && tile_state && bf16 && tiles && int8 && may_use_tiles();
  return found;
}

int cores_in_affinity_mask() {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0)
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));  // more than 1,024 processors
  std::vector<int> processors;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &mask)) processors.push_back(i);
  return std::max(1, count_cores(processors, "/sys/devices/system/cpu"));
}

}  // namespace

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

int count_cores(const std::vector<int>& processors, const std::filesystem::path& topology) {
  std::set<std::string> cores;
  for (const int processor : processors) {
    const std::string name = "cpu" + std::to_string(processor);
    std::ifstream file(topology / name / "topology/core_cpus_list");
    std::string core;
    cores.insert(std::getline(file, core) ? core : name);
  }
  return static_cast<int>(cores.size());
}

int available_cores() {
  const int cores = cores_in_affinity_mask();
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "150000 100000": microseconds of CPU time a period; "max
                                                 // 100000": no quota
  double quota = 0, period = 0;
  if (!(file >> quota >> period) || quota <= 0 || period <= 0) return cores;
  return std::clamp(static_cast<int>(std::ceil(quota / period)), 1, cores);
}

}  // namespace tramontane
