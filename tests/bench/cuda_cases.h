// The launchers of cuda/ at the shapes of Mistral 7B, to be timed.
#pragma once

#include <vector>

#include "tests/bench/cuda_timing.h"

namespace tramontane::cuda {

// Names are operation/format/NxK/rows:R and the like. Data is made by a case's first launch and given back
// with its Case.
std::vector<Case> linear_cases(const DeviceLimits& limits);
std::vector<Case> attention_cases(const DeviceLimits& limits);
std::vector<Case> rowwise_cases(const DeviceLimits& limits);
std::vector<Case> sampling_cases(const DeviceLimits& limits);

}  // namespace tramontane::cuda
