// A PTX module in the device: its variables have addresses, its kernels are lowered when first asked for.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "tests/cuda_emulator/program.h"
#include "tests/cuda_emulator/ptx/ast.h"

namespace tramontane::emulator {

struct GlobalVariable {
  u64 address = 0;
  u64 bytes = 0;
};

// Thread-safe.
class Module {
 public:
  // Throws std::runtime_error (bad PTX) or Fault (no memory).
  explicit Module(ptx::Module source);

  // Null when there is no kernel of that (mangled) name.
  const Kernel* kernel(const std::string& name);
  // Null when there is none.
  const GlobalVariable* variable(const std::string& name) const;
  const ptx::Module& source() const { return source_; }
  // Gives all variables fresh memory with their initial values, as after cudaDeviceReset.
  void load();

 private:
  void initialize(const ptx::Variable& variable);

  const ptx::Module source_;
  std::mutex mutex_;
  std::map<std::string, GlobalVariable> variables_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
};

}  // namespace tramontane::emulator
