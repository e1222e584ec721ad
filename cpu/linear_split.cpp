#include "cpu/linear_split.h"

namespace tramontane {

int row_parts(int64_t panels, int64_t rows, int threads) {
  int best = 1;
  int64_t least = ceil_div(panels, threads) * rows;
  for (int parts = 2; parts <= threads && parts <= rows; ++parts) {
    if (threads % parts != 0) continue;
    const int64_t most = ceil_div(panels, threads / parts) * ceil_div(rows, parts);
    // Two row ranges unpack every weight twice: not for a few per cent.
    if (most * 10 < least * 9) {
      best = parts;
      least = most;
    }
  }
  return best;
}

}  // namespace tramontane
