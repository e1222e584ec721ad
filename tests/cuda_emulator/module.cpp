#include "tests/cuda_emulator/module.h"

#include <cstring>
#include <stdexcept>
#include <vector>

#include "tests/cuda_emulator/device_memory.h"
#include "tests/cuda_emulator/fatbin.h"
#include "tests/cuda_emulator/fault.h"
#include "tests/cuda_emulator/lowering.h"
#include "tests/cuda_emulator/machine_code.h"
#include "tests/cuda_emulator/ptx/parser.h"

namespace tramontane::emulator {

void Module::unload() {
  const std::lock_guard lock(mutex_);
  kernels_.clear();  // addresses are constants in them
  variables_.clear();
  is_loaded_ = false;
}

void Module::provide() {
  if (is_loaded_) return;
  try {
    if (!source_) source_ = ptx::parse(text_);
    text_ = {};
    load();
    is_loaded_ = true;
  } catch (const Fault&) {
    throw;
  } catch (const std::runtime_error& error) {
    throw Fault(cudaErrorInvalidPtx, error.what());
  }
}

void Module::load() {
  for (const auto& variable : source_->variables) {
    if (variable->space != ptx::Space::kGlobal && variable->space != ptx::Space::kConst) continue;
    if (variable->is_extern)
      throw std::runtime_error("PTX variable " + variable->name +
                               " lies in another module (-rdc is not supported)");
    const u64 address = DeviceMemory::instance().allocate(variable->bytes);
    if (!address) throw Fault(cudaErrorMemoryAllocation, "no memory for the variable " + variable->name);
    variables_[variable->name] = {address, variable->bytes};
  }
  for (const auto& variable : source_->variables)
    if (variables_.contains(variable->name)) initialize(*variable);
}

void Module::initialize(const ptx::Variable& variable) {
  std::vector<u8> bytes(variable.bytes);
  u64 at = 0;
  for (const ptx::Initializer& value : variable.values) {
    u64 bits = value.bits;
    if (!value.symbol.empty()) {
      const auto symbol = variables_.find(value.symbol);
      if (symbol == variables_.end())
        throw std::runtime_error("PTX variable " + variable.name + ": unknown address of " + value.symbol);
      bits += symbol->second.address;
    }
    if (at + variable.element_size > bytes.size())
      throw std::runtime_error("PTX variable " + variable.name + ": too many values");
    std::memcpy(bytes.data() + at, &bits, variable.element_size);
    at += variable.element_size;
  }
  DeviceMemory::instance().copy_in(variables_[variable.name].address, bytes.data(), bytes.size());
}

const Kernel* Module::kernel(const std::string& name) {
  const std::lock_guard lock(mutex_);
  provide();
  const auto function = source_->functions.find(name);
  if (function == source_->functions.end() || !function->second.is_entry) return nullptr;
  std::unique_ptr<Kernel>& kernel = kernels_[name];
  if (!kernel) kernel = std::make_unique<Kernel>(lower(*source_, function->second, variables_));
  return kernel.get();
}

u32 Module::registers(const std::string& name, u32 compute) {
  const std::lock_guard lock(mutex_);
  auto of_device = registers_.find(compute);
  if (of_device == registers_.end())
    of_device = registers_.emplace(compute, registers_of(machine_code_of(wrapper_, compute))).first;
  const auto found = of_device->second.find(name);
  return found == of_device->second.end() ? 0 : found->second;
}

const GlobalVariable* Module::variable(const std::string& name) {
  const std::lock_guard lock(mutex_);
  provide();
  const auto it = variables_.find(name);
  return it == variables_.end() ? nullptr : &it->second;
}

}  // namespace tramontane::emulator
