// SamplingBatch: what one step draws, collected on the host and copied, all in one piece, to a persistent
// device buffer, for backends that sample. Also keeps what the device must know of each running sequence: how
// often each token occurs in it, for its penalties. Never allocates after construction. Engine thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/active_request.h"
#include "engine/backend/backend.h"
#include "engine/batch.h"

namespace tramontane {

class SamplingBatch {
 public:
  SamplingBatch(Backend& backend, const BatchLimits& limits, int32_t vocab_size);
  static uint64_t workspace_bytes(const BatchLimits& limits, int32_t vocab_size);

  void clear();
  // The next token of a running sequence, from this row of the step's logits.
  void add(ActiveSequence& sequence, int32_t logits_row);
  // Queues the draw of all that was added; the ids [rows] stay on the device until the next call.
  void sample(TensorView logits);
  int32_t n_rows() const { return n_rows_; }
  // What the newest sample() drew.
  TensorView ids() const { return ids_; }

 private:
  void add_biases(const ActiveSequence& sequence, SamplingRow& row);
  void count_tokens(ActiveSequence& sequence);
  TensorView counts() const;

  Backend& backend_;
  int32_t max_sequences_, vocab_size_;
  std::vector<std::byte> host_;  // what lies in draws_: room for all rows, then biases
  SamplingRow* rows_;            // within host_, like the next
  LogitBias* biases_;
  int32_t n_rows_ = 0, n_biases_ = 0;
  Buffer draws_, counts_, device_ids_, text_;
  TensorView ids_;
};

}  // namespace tramontane
