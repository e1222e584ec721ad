// The CPU backend: every kernel set that this processor can run.
#include "cpu/cpu_backend.h"
#include "tests/support/backend_cases.h"

namespace tramontane {

std::vector<BackendCase> backend_cases() {
  std::vector<BackendCase> cases;
  for (const std::string& kernels : available_cpu_kernels()) {
    cases.push_back({kernels, [kernels](int threads) {
                       return make_cpu_backend({.threads = threads, .kernels = kernels, .f32 = false});
                     }});
  }
  return cases;
}

std::vector<BackendCase> all_arithmetic_cases() {
  std::vector<BackendCase> cases = backend_cases();
  cases.push_back({"scalar_f32", [](int threads) {
                     return make_cpu_backend({.threads = threads, .kernels = "scalar", .f32 = true});
                   }});
  return cases;
}

}  // namespace tramontane
