// The emulator's own calls, for tests. They are looked up in the process, so that a test program links to any
// CUDA runtime and runs on a real GPU too.
#pragma once

#include <dlfcn.h>

#include <cstdint>
#include <string>

namespace tramontane::emulator {

// Whether this process runs on the emulator; false on a real CUDA runtime.
inline bool is_emulated() {
  return dlsym(RTLD_DEFAULT, "cudaEmulatorReport") != nullptr;
}

// Sets an option by its name in options.h. False when there is none of that name or value, or no emulator.
inline bool set(const char* name, const char* value) {
  const auto call =
      reinterpret_cast<int (*)(const char*, const char*)>(dlsym(RTLD_DEFAULT, "cudaEmulatorSet"));
  return call && call(name, value) == 0;
}

// What the last fault or refused call said.
inline std::string report() {
  const auto call = reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorReport"));
  return call ? call() : "";
}

// The instructions of all kernels in this process that the emulator does not know, one a line.
inline std::string unsupported() {
  const auto call = reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorUnsupported"));
  return call ? call() : "";
}

// The kernels that this process has registered as C++ spells them, one a line.
inline std::string kernels() {
  const auto call = reinterpret_cast<const char* (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorKernels"));
  return call ? call() : "";
}

// How many kernels have run, in this process, of what was waited for; also those out of graphs.
inline unsigned long long launches() {
  const auto call = reinterpret_cast<unsigned long long (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorLaunches"));
  return call ? call() : 0;
}

// How many kernels were launched before anything else was asked of them: a GPU loads their code at that
// launch.
inline uint64_t late_loads() {
  const auto call = reinterpret_cast<unsigned long long (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorLateLoads"));
  return call ? call() : 0;
}

// How many copies from host to device were asked for so far.
inline uint64_t uploads() {
  const auto call = reinterpret_cast<unsigned long long (*)()>(dlsym(RTLD_DEFAULT, "cudaEmulatorUploads"));
  return call ? call() : 0;
}

}  // namespace tramontane::emulator
