#include "cuda/graph_plan.h"

#include <algorithm>

namespace tramontane::cuda {
namespace {

constexpr int32_t kLeastKeys = 512, kKeysFactor = 4;

}  // namespace

int32_t graph_rows(int32_t rows) {
  for (const int32_t size : {1, 2, 4, 8}) {
    if (rows <= size) return size;
  }
  return (rows + 7) / 8 * 8;
}

int32_t graph_keys(int32_t max_kv) {
  int64_t keys = kLeastKeys;
  while (keys < max_kv) keys *= kKeysFactor;
  return static_cast<int32_t>(std::min<int64_t>(keys, INT32_MAX));
}

uint64_t graph_count(int32_t max_sequences, int32_t max_kv) {
  uint64_t sizes = 1, lengths = 1;
  for (int32_t rows = 1; rows < std::min(max_sequences, kMostGraphRows); rows = graph_rows(rows + 1)) ++sizes;
  for (int32_t keys = kLeastKeys; keys < max_kv; keys = graph_keys(keys + 1)) ++lengths;
  return sizes * lengths;
}

}  // namespace tramontane::cuda
