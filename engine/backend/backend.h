// Backend: the few coarse operations a forward pass is made of. `cpu/` and `cuda/` implement it and nothing else.
// Engine thread only. Operations may be asynchronous: results are the host's after download().
//
// Numerics (engine/DESIGN.md, "Rounding points"):
//  - act_dtype() is BF16, or F32 when the backend was made for F32 arithmetic (a reference mode, CPU only). It is the dtype of every
//    matmul input (norm, attention and silu_mul outputs) and of the KV cache. Everything else is FP32.
//  - BF16 mode: dense F16/F32 weights are rounded once to BF16 at upload (what transformers does when it loads in bfloat16);
//    quantised weights are used as matrix.h defines them, each within one BF16 rounding (in integer planes: of the largest of its
//    block of K); a kernel that takes them so may round the other factor to integers too (cpu/linear_planes_tile.h, cpu/linear_tile.h). F32 mode: weights exactly as stored.
//  - Every output element is reduced in an order that depends only on the weight's shape (decision 5): never on how many rows share
//    the call, on the number of threads, or on how a prompt was cut into steps.
// Shapes are checked once at op entry (backend_checks.h) and name what is wrong: "linear: K of x is 4096, K of w is 14336".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "engine/backend/matrix.h"
#include "engine/backend/sampling.h"
#include "engine/backend/tensor.h"

namespace tramontane {

// Tokens of one KV page. 16: one head-page of 128 BF16 is 4 KB, and little is lost in a sequence's last page.
inline constexpr int kBlockTokens = 16;

// The heads of one attention layer, the same for all layers of a model.
struct AttentionShape {
  int32_t n_heads = 0;
  int32_t n_kv_heads = 0;   // divides n_heads; query head h reads kv head h / (n_heads / n_kv_heads)
  int32_t head_dim = 0;     // even
  int32_t sliding_window = 0;  // 0: none; w: position p sees positions max(0, p - w + 1) .. p

  int64_t q_cols() const { return int64_t{n_heads} * head_dim; }
  int64_t kv_cols() const { return int64_t{n_kv_heads} * head_dim; }
  int64_t qkv_cols() const { return q_cols() + 2 * kv_cols(); }
};

// The KV pages of one layer: n_blocks pages of [k|v][n_kv_heads][kBlockTokens][head_dim] elements of act_dtype.
// The order inside a head-page is the backend's own: only rope_store_kv writes it and only attention reads it.
struct KvLayer {
  std::byte* data = nullptr;
  int32_t n_blocks = 0;
};

// One step's rows, in persistent memory that the backend can read (decision 4: nothing here is a kernel scalar).
// Rows of one sequence are consecutive. Example: 3 sequences of 2, 3 and 4 rows: q_starts is [0, 2, 5, 9].
// Padding (only where padded_rows asked for it) is sequences of one row with token 0, position 0, slot -1
// (nothing is stored) and kv_len 0 (nothing is attended: attention writes zeros), whose logits nobody reads.
struct BatchView {
  TensorView tokens;       // i32 [n_tokens]
  TensorView positions;    // i32 [n_tokens]; row r of sequence s has position kv_lens[s] - (q_starts[s+1] - r)
  TensorView slots;        // i32 [n_tokens]: block * kBlockTokens + offset, where the row's k and v are stored
  TensorView q_starts;     // i32 [n_seqs + 1]
  TensorView kv_lens;      // i32 [n_seqs]: keys a sequence has after this step
  TensorView block_table;  // i32 [n_seqs, max blocks of a sequence]
  TensorView logit_rows;   // i32 [n_logits]: ascending rows whose logits are wanted
  int32_t n_tokens = 0, n_seqs = 0, n_logits = 0;
  int32_t max_q = 0, max_kv = 0;  // the largest q count and kv_len of any sequence
};

// The largest step that will come: what scratch is sized for.
struct StepLimits {
  int32_t max_tokens = 0, max_sequences = 0, max_kv = 0;
};

// Memory that a model may take.
struct MemoryBudget {
  uint64_t bytes = 0;      // 0: cannot tell, everything fits
  bool dedicated = false;  // the KV cache may take all that is left: nobody else wants it
  std::string_view remedy = {};  // what would raise it ("raise --gpu-memory"); empty: nothing
};

// What a backend takes besides buffers that are allocated through it.
struct StepMemory {
  uint64_t scratch = 0, graphs = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // "cpu (avx512bf16, 2 threads)": for logs, /v1/models and system_fingerprint.
  virtual std::string description() const = 0;
  virtual DType act_dtype() const = 0;

  // What is left for a model, now. Default: the host's memory, shared with other programs.
  virtual MemoryBudget memory() const;
  // Bytes that upload_matrix will take for a matrix of this shape and layout. Default: its canonical bytes.
  virtual uint64_t matrix_bytes(const HostMatrix& matrix) const;
  // What reserve() and the steps after it will take. Default: nothing.
  virtual StepMemory step_memory(const StepLimits&, const AttentionShape&) const { return {}; }
  // Sizes scratch so that no step allocates. Before the first step; again for another model. Default: nothing.
  virtual void reserve(const StepLimits&, const AttentionShape&) {}
  // Rows to which a step of `rows` sequences with one row each is padded (BatchView says how), so that few
  // captured graphs serve all sizes. At most `most`, itself at least `rows`. Default: none.
  virtual int32_t padded_rows(int32_t rows, [[maybe_unused]] int32_t most) const { return rows; }

  // Zero-filled, 64-byte aligned. Throws std::runtime_error naming `label` and the size when there is not enough memory.
  virtual Buffer allocate(size_t bytes, std::string_view label) = 0;
  // Takes a canonical matrix, may reorder it into its own tiles; the source may be freed afterwards.
  virtual Matrix upload_matrix(const HostMatrix& matrix, std::string_view label) = 0;
  // Copies host bytes to device memory (norm weights, tables, the step's batch).
  virtual void upload(std::byte* device, std::span<const std::byte> host) = 0;
  // Waits for every operation queued so far, then copies device bytes to the host.
  virtual void download(const std::byte* device, std::span<std::byte> host) = 0;

  // Bracket one forward pass; a CUDA graph is captured or replayed between them.
  virtual void begin_step(const BatchView& batch) = 0;
  virtual void end_step() = 0;

  // x[T,D] (f32) = table[tokens[t], :]. Token ids are already checked to be in range.
  virtual void embed(TensorView tokens, const Matrix& table, TensorView x) = 0;
  // y[T,N] (f32, rows may be strided) = x[T,K] (act_dtype) · w[N,K]^T
  virtual void linear(TensorView x, const Matrix& w, TensorView y) = 0;
  // x[T,D] (f32) += delta[T,D] (f32; may be empty: nothing is added); y[T,D] (act_dtype) = x / sqrt(mean(x²) + eps) · w[D] (f32)
  virtual void add_rmsnorm(TensorView x, TensorView delta, TensorView w, float eps, TensorView y) = 0;
  // Rotates q and k of qkv [T, qkv_cols] (f32) in place by position and stores k and v (act_dtype) to each row's slot.
  // rope [max_position, head_dim] f32 holds (cos, sin) pairs: pair j is elements 2j, 2j+1 of a head, rotated as
  //   (a, b) -> (a·cos - b·sin, a·sin + b·cos).  The loader has permuted q and k rows to this interleaved pairing.
  virtual void rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope, KvLayer kv) = 0;
  // out[T, q_cols] (act_dtype) = softmax(q·k^T / sqrt(head_dim), causal)·v over the paged cache.
  virtual void attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv, TensorView out) = 0;
  // y[T,F] (act_dtype) = silu(gate)·up, gate_up [T, 2F] f32: gate in columns 0..F, up in F..2F
  virtual void silu_mul(TensorView gate_up, TensorView y) = 0;
  // y[i,:] = x[rows[i],:], both f32
  virtual void gather_rows(TensorView x, TensorView rows, TensorView y) = 0;

  // Sampling where the logits are, by the definition of engine/sampler.h. A backend that says so has all of
  // the following; of another one they are never called.
  virtual bool samples_on_device() const { return false; }
  // ids[i] = the token for rows[i], -1 when there is none; it is counted in the row's counts. `logits`
  // [any, vocab] f32 are scratch afterwards.
  virtual void sample(TensorView logits, const SamplingView& view);
  // counts[1, vocab] (i32) of a text of tokens[1, n] (i32), the first n_prompt of which are the prompt.
  virtual void count_tokens(TensorView tokens, int32_t n_prompt, TensorView counts);
  // tokens[t] = ids[sources[t]] where sources[t] >= 0 (0 for an id of -1): the draws of the step before become
  // this step's input.
  virtual void take_tokens(TensorView ids, TensorView sources, TensorView tokens);
  // Results that come back while later work goes on: start_read queues a copy to the host, finish_read waits
  // for it and for what was queued before it, not for what came after. Places 0 and 1, each read in turn.
  virtual void start_read(int place, const std::byte* device, size_t bytes);
  virtual void finish_read(int place, std::span<std::byte> host);

  // Fused operations. The default bodies are compositions of the operations above; a backend that has its own
  // gives the same bits. `w`: the parts of a stacked matrix, in order.

  // y[T,N] (f32) += x[T,K] (act_dtype) · w[N,K]^T. The sum may be left to the norm that follows: returns what
  // is still to be added to y, either `scratch` [T,N] (f32) or an empty view.
  virtual TensorView linear_add(TensorView x, const Matrix& w, TensorView y, TensorView scratch);
  // add_rmsnorm(x, delta, norm) -> h, h · w^T -> qkv, rope_store_kv(qkv). h [T,D] (act_dtype) is scratch, and so
  // are the k and v columns of qkv afterwards.
  virtual void norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                             std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                             const AttentionShape& shape, TensorView rope, KvLayer kv);
  // add_rmsnorm(x, delta, norm) -> h, h · w^T -> gate_up, silu_mul(gate_up) -> y. h [T,D] (act_dtype) and
  // gate_up [T,2F] (f32) are scratch.
  virtual void norm_gate_up_silu(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                                 std::span<const Matrix> w, TensorView gate_up, TensorView y);

 protected:
  // y[:, part] = x · part^T, side by side.
  void linear_stacked(TensorView x, std::span<const Matrix> w, TensorView y);
};

}  // namespace tramontane
