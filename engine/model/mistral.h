// Mistral: the weights by role and the forward pass, written once over Backend. Engine thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/batch.h"
#include "engine/model/kv_cache.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

// Matrices that share an input, stacked along their outputs (q,k,v; gate,up). One part when their layouts
// agree, else several.
using StackedMatrix = std::vector<Matrix>;

struct MistralLayer {
  Buffer attention_norm, ffn_norm;  // f32 [dim]
  StackedMatrix wqkv;               // [(n_heads + 2*n_kv_heads) * head_dim, dim]
  Matrix wo;                        // [dim, n_heads*head_dim]
  StackedMatrix w13;                // [2*hidden_dim, dim]: gate rows, then up rows
  Matrix w2;                        // [dim, hidden_dim]
};

class Mistral {
 public:
  // Uploads every weight and sizes scratch, the backend's too, for steps within `limits`; max_position rows
  // of the RoPE table.
  Mistral(Backend& backend, const Checkpoint& checkpoint, const BatchLimits& limits, int32_t max_position,
          const std::function<void(uint64_t done, uint64_t total)>& progress = {});

  // Bytes that the constructor will allocate besides weights and the backend's own scratch.
  static uint64_t workspace_bytes(const ModelConfig& config, const BatchLimits& limits, int32_t max_position,
                                  DType act_dtype);
  // Bytes that the weights take once uploaded.
  static uint64_t weight_bytes(const Backend& backend, const Checkpoint& checkpoint);

  // Runs one step; returns FP32 logits [batch.n_logits, vocab_size] in backend memory, valid until the next
  // call.
  TensorView forward(const BatchView& batch, KvCache& cache);

  const ModelConfig& config() const { return config_; }
  const AttentionShape& attention_shape() const { return shape_; }

 private:
  TensorView logits(const BatchView& batch, TensorView x, TensorView delta);

  Backend& backend_;
  ModelConfig config_;
  AttentionShape shape_;
  std::vector<MistralLayer> layers_;
  Matrix tok_embeddings_, output_;  // output_ is empty when tied
  bool tied_ = false;
  Buffer norm_;  // f32 [dim]
  Buffer rope_;  // f32 [max_position, head_dim] (cos, sin) pairs
  Buffer x_, delta_, h_, qkv_, attention_, gate_up_, activation_;  // scratch, max_tokens rows each
  Buffer sampled_x_, sampled_delta_, sampled_h_, logits_;          // scratch, max_logits rows each
  BatchLimits limits_;
};

}  // namespace tramontane
