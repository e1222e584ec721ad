#include "engine/model/kv_cache.h"

namespace tramontane {

KvCache::KvCache(Backend& backend, const AttentionShape& shape, int32_t n_layers, int32_t n_blocks)
    : n_blocks_(n_blocks) {
  const size_t bytes = page_bytes(shape, backend.act_dtype()) * static_cast<size_t>(n_blocks);
  for (int32_t i = 0; i < n_layers; ++i) layers_.push_back(backend.allocate(bytes, "KV cache"));
}

}  // namespace tramontane
