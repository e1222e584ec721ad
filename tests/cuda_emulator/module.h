// A PTX module in the device: it is parsed when it is first asked for anything, its variables then have
// addresses, and each kernel is lowered when first asked for. A program registers all of its modules, and
// most use few.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "tests/cuda_emulator/program.h"
#include "tests/cuda_emulator/ptx/ast.h"

namespace tramontane::emulator {

struct GlobalVariable {
  u64 address = 0;
  u64 bytes = 0;
};

// Thread-safe. What asks for something throws Fault for bad PTX, and when there is no memory for the
// variables.
class Module {
 public:
  // The PTX, and the fat binary that it is of.
  Module(std::string text, const void* wrapper) : text_(std::move(text)), wrapper_(wrapper) {}

  // Null when there is no kernel of that (mangled) name.
  const Kernel* kernel(const std::string& name);
  // Null when there is none.
  const GlobalVariable* variable(const std::string& name);
  // How many registers a thread of a kernel takes in the machine code for a device of this capability, or for
  // the newest one before it. 0 where there is none.
  u32 registers(const std::string& name, u32 compute);
  // As after cudaDeviceReset: all variables get fresh memory with their initial values when next asked for.
  void unload();

 private:
  void provide();
  void load();
  void initialize(const ptx::Variable& variable);

  std::string text_;  // until it is parsed
  const void* wrapper_;
  std::optional<ptx::Module> source_;
  bool is_loaded_ = false;
  std::mutex mutex_;
  std::map<std::string, GlobalVariable> variables_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
  std::map<u32, std::map<std::string, u32>> registers_;  // by capability, then by kernel
};

}  // namespace tramontane::emulator
