// Batch: one step's rows, collected on the host and copied to the persistent device buffers that BatchView
// names (decision 4). Never allocates after construction. Engine thread only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/backend/backend.h"

namespace tramontane {

struct BatchLimits {
  int32_t max_tokens = 0, max_sequences = 0, max_logits = 0;
  int32_t max_blocks = 0;  // of one sequence
};

class Batch {
 public:
  Batch(Backend& backend, const BatchLimits& limits);
  static uint64_t workspace_bytes(const BatchLimits& limits);

  void clear();
  // The next rows: `tokens` at positions first_position, first_position + 1, … of a sequence whose k and v
  // live in `blocks`. The last n_logits of them want logits.
  void add(std::span<const int32_t> tokens, int32_t first_position, std::span<const int32_t> blocks,
           int32_t n_logits);
  // The newest row's token is not known here: it is the id that the step before drew in this row.
  void take_last_token_from(int32_t drawn_row);
  bool has_sources() const { return has_sources_; }
  // After upload(), for Backend::take_tokens: i32 [tokens that were added], -1 where the token is known.
  TensorView sources() { return copy(sources_); }
  // Copies what was added to the device, padded as the backend wants; the view is valid until the next
  // clear().
  BatchView upload();

 private:
  // One array of i32 on the host and its device copy.
  struct Array {
    std::vector<int32_t> host;  // capacity reserved
    int32_t* device = nullptr;
  };
  void pad();
  TensorView copy(const Array& array);

  Backend& backend_;
  BatchLimits limits_;
  Buffer device_;  // all arrays, one after the other, 64-byte aligned
  Array tokens_, positions_, slots_, q_starts_, kv_lens_, logit_rows_, block_table_, sources_;
  bool has_sources_ = false;
  int32_t max_q_ = 0, max_kv_ = 0;
};

}  // namespace tramontane
