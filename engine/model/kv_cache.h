// KvCache: the memory behind the block ids. Layer l's page b lies at layer(l).data + b * page_bytes. Engine
// thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"

namespace tramontane {

class KvCache {
 public:
  KvCache(Backend& backend, const AttentionShape& shape, int32_t n_layers, int32_t n_blocks);

  // Bytes of one page of one layer: k and v of kBlockTokens tokens.
  static size_t page_bytes(const AttentionShape& shape, DType act_dtype) {
    return 2 * static_cast<size_t>(shape.kv_cols()) * kBlockTokens * size_of(act_dtype);
  }
  KvLayer layer(int32_t index) const { return {layers_[static_cast<size_t>(index)].data(), n_blocks_}; }
  int32_t n_blocks() const { return n_blocks_; }

 private:
  std::vector<Buffer> layers_;
  int32_t n_blocks_ = 0;
};

}  // namespace tramontane
