#include "tests/cuda_emulator/ops/forms.h"

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace tramontane::emulator {
namespace {

std::vector<std::string> split(std::string_view opcode) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t k = 0; k <= opcode.size(); ++k) {
    if (k < opcode.size() && opcode[k] != '.') continue;
    parts.emplace_back(opcode.substr(begin, k - begin));
    begin = k + 1;
  }
  return parts;
}

bool is_one_of(const std::string& word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Every access here is performed in program order and seen at once, which all orders and scopes allow.
bool changes_nothing(const std::string& op, const std::string& modifier) {
  if (modifier == "uni") return true;
  if (modifier.starts_with("L1::") || (modifier.starts_with("L2::") && modifier != "L2::cache_hint"))
    return true;
  if (op == "ld" || op == "st" || op == "ldu")
    return is_one_of(modifier, {"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "volatile", "relaxed",
                                "acquire", "release", "weak", "gpu", "cta", "sys", "cluster"});
  if (op == "atom" || op == "red")
    return is_one_of(modifier, {"relaxed", "acquire", "release", "acq_rel", "gpu", "cta", "sys", "cluster"});
  if (op == "prefetch" || op == "prefetchu" || op == "discard") return modifier == "L1" || modifier == "L2";
  return op == "cp" && is_one_of(modifier, {"ca", "cg"});
}

}  // namespace

std::string canonical_opcode(std::string_view opcode) {
  const std::vector<std::string> parts = split(opcode);
  std::string result = parts[0];
  for (std::size_t k = 1; k < parts.size(); ++k) {
    if (changes_nothing(parts[0], parts[k])) continue;
    result += '.';
    result += parts[k] == "shared::cta" ? "shared" : parts[k];
  }
  return result;
}

const FormTable& FormTable::instance() {
  static const FormTable* table = [] {
    auto* t = new FormTable;
    for (const auto add :
         {add_integer_forms, add_bit_forms, add_float_forms, add_rounding_forms, add_special_function_forms,
          add_half_forms, add_conversion_forms, add_comparison_forms, add_memory_forms, add_atomic_forms,
          add_warp_forms, add_control_forms, add_tensor_forms, add_async_copy_forms})
      add(*t);
    return t;
  }();
  return *table;
}

const Form* FormTable::find(std::string_view opcode) const {
  const auto it = forms_.find(opcode);
  return it == forms_.end() ? nullptr : &it->second;
}

void FormTable::add(const std::string& opcode, Form form) {
  if (!forms_.emplace(opcode, std::move(form)).second)
    throw std::logic_error("PTX form " + opcode + " is in the table twice");
}

}  // namespace tramontane::emulator
