// How one product is split over threads. Pure; any thread.
#pragma once

#include <cstdint>

namespace tramontane {

inline int64_t ceil_div(int64_t value, int64_t by) {
  return (value + by - 1) / by;
}

// Into how many row ranges to cut, so that the busiest thread has the least to do; on a tie the fewest, as
// every row range reads its weights again. Divides `threads`. `rows` may be counted in tiles.
int row_parts(int64_t panels, int64_t rows, int threads);

}  // namespace tramontane
