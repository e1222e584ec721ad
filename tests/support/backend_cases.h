// The backends that a suite runs on. A program of the suite is linked with one list: cpu_cases.cpp, or
// tests/cuda/cuda_cases.cpp.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/backend/backend.h"

namespace tramontane {

struct BackendCase {
  std::string name;
  std::function<std::unique_ptr<Backend>(int threads)> make;
  // What attention rounds besides its output: queries and softmax weights, to so much of their value.
  double attention_rounding = 0;
  std::vector<int32_t> head_dims = {};  // that attention can do; empty: all
  bool is_slow = false;                 // an emulator: suites do less of the same
};
// What a failing test prints of its parameter.
inline void PrintTo(const BackendCase& backend, std::ostream* out) {
  *out << backend.name;
}

// Every backend, or kernel set, that can run here in BF16 arithmetic.
std::vector<BackendCase> backend_cases();
// The same, and F32 arithmetic where there is any.
std::vector<BackendCase> all_arithmetic_cases();

}  // namespace tramontane
