// Batch: one step's rows, collected on the host and copied, all in one piece, to the persistent device arrays
// that BatchView names (decision 4). Never allocates after construction. Engine thread only.
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
  // After upload(), for Backend::take_tokens: i32 [n_tokens], -1 where the token is known.
  TensorView sources() const { return sources_.view(); }
  // Copies what was added to the device, padded as the backend wants; the view is valid until the next
  // clear().
  BatchView upload();

 private:
  // One array of i32: where it lies on the host, and at the same offset on the device.
  struct Array {
    int32_t* host = nullptr;
    std::byte* device = nullptr;
    int32_t size = 0;
    void push(int32_t value) { host[size++] = value; }
    TensorView view() const { return {device, DType::i32, 1, size, size}; }
  };
  void pad();
  void push_blocks(std::span<const int32_t> blocks);

  Backend& backend_;
  BatchLimits limits_;
  std::vector<int32_t> host_;  // what lies on the device, all arrays one after the other, 64-byte aligned
  Buffer device_;
  Array tokens_, positions_, slots_, sources_, q_starts_, kv_lens_, logit_rows_;
  Array block_table_;  // the last one: it is long, and only the part in use is copied
  bool has_sources_ = false;
  int32_t max_q_ = 0, max_kv_ = 0;
};

}  // namespace tramontane
