#pragma once

namespace tramontane::cuda {

// scales[threads]: what row_rms_scale gives each thread of a block of so many.
void launch_row_scale(const float* row, int n, float eps, int threads, float* scales);

}  // namespace tramontane::cuda
