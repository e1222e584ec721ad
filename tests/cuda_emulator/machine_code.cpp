#include "tests/cuda_emulator/machine_code.h"

#include <elf.h>

#include <cstring>
#include <optional>

namespace tramontane::emulator {
namespace {

template <class T>
std::optional<T> at(const std::string& file, u64 offset) {
  if (offset > file.size() || file.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

std::optional<Elf64_Shdr> section(const std::string& file, const Elf64_Ehdr& header, unsigned index) {
  return at<Elf64_Shdr>(file, header.e_shoff + u64{index} * header.e_shentsize);
}

}  // namespace

// A kernel's code is a section ".text." and its name, whose sh_info has the registers in its upper byte.
std::map<std::string, u32> registers_of(const std::string& elf) {
  std::map<std::string, u32> result;
  const auto header = at<Elf64_Ehdr>(elf, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) return result;
  const auto names = section(elf, *header, header->e_shstrndx);
  if (!names) return result;
  constexpr std::string_view kPrefix = ".text.";
  for (unsigned index = 0; index < header->e_shnum; ++index) {
    const auto code = section(elf, *header, index);
    if (!code || names->sh_offset + code->sh_name >= elf.size()) continue;
    const std::string_view name = elf.c_str() + names->sh_offset + code->sh_name;
    if (name.starts_with(kPrefix)) result[std::string(name.substr(kPrefix.size()))] = code->sh_info >> 24;
  }
  return result;
}

}  // namespace tramontane::emulator
