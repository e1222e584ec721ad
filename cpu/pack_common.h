// What the packers of the weight layouts share: panels of 16 output channels, with the scales of a group of K
// beside one another. Stateless; any thread.
#pragma once

#include <functional>

#include "cpu/linear_tile.h"
#include "cpu/thread_pool.h"
#include "engine/backend/matrix.h"

namespace tramontane {

inline int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

inline int64_t panel_count(int64_t n) {
  return (n + kPanelChannels - 1) / kPanelChannels;
}

// A matrix to be packed, without its bytes.
Matrix shape_of(const HostMatrix& matrix);

// Of quantised weights: by the bits of their slots.
WeightCodes weight_codes(int bits);

// Stops (CHECK) for a dtype that scales cannot have.
ScaleType scale_type_of(DType dtype);

// Element `index` of an F32, F16 or BF16 array.
float element_at(const std::byte* data, DType dtype, int64_t index);

// Bytes of one group's 16 scales, and of its 16 biases where there are any.
int64_t group_bytes(const Matrix& matrix);

// The channels of one panel of a canonical matrix: 16 of them, or fewer where it ends.
struct PanelRows {
  const HostMatrix& matrix;
  int64_t first;
  int channels;

  // The canonical codes of one of them.
  const std::byte* codes(int channel) const {
    return matrix.codes.data() + (first + channel) * (static_cast<int64_t>(matrix.codes.size()) / matrix.n);
  }
};

// A group's scales, then its biases where there are any, 16 values each: those of channels that do not exist
// are left as they are. `out` has group_bytes.
void pack_group_scales(const PanelRows& rows, int64_t group, std::byte* out);

// Calls pack(panel, its rows) for every panel, shared out among the threads.
void for_each_panel(const HostMatrix& matrix, ThreadPool& pool,
                    const std::function<void(int64_t, const PanelRows&)>& pack);

}  // namespace tramontane
