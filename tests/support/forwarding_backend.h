// A Backend that passes everything on to another: tests derive from it to watch or to disturb.
#pragma once

#include <string>

#include "engine/backend/backend.h"

namespace tramontane {

class ForwardingBackend : public Backend {
 public:
  explicit ForwardingBackend(Backend& inner) : inner_(inner) {}

  std::string description() const override { return inner_.description(); }
  DType act_dtype() const override { return inner_.act_dtype(); }
  MemoryBudget memory() const override { return inner_.memory(); }
  uint64_t matrix_bytes(const HostMatrix& matrix) const override { return inner_.matrix_bytes(matrix); }
  StepMemory step_memory(const StepLimits& limits, const AttentionShape& shape) const override {
    return inner_.step_memory(limits, shape);
  }
  void reserve(const StepLimits& limits, const AttentionShape& shape) override {
    inner_.reserve(limits, shape);
  }
  int32_t padded_rows(int32_t rows, int32_t most) const override { return inner_.padded_rows(rows, most); }
  Buffer allocate(size_t bytes, std::string_view label) override { return inner_.allocate(bytes, label); }
  Matrix upload_matrix(const HostMatrix& matrix, std::string_view label) override {
    return inner_.upload_matrix(matrix, label);
  }
  void upload(std::byte* device, std::span<const std::byte> host) override { inner_.upload(device, host); }
  void download(const std::byte* device, std::span<std::byte> host) override {
    inner_.download(device, host);
  }
  void begin_step(const BatchView& batch) override { inner_.begin_step(batch); }
  void end_step() override { inner_.end_step(); }
  void embed(TensorView tokens, const Matrix& table, TensorView x) override {
    inner_.embed(tokens, table, x);
  }
  void linear(TensorView x, const Matrix& w, TensorView y) override { inner_.linear(x, w, y); }
  void add_rmsnorm(TensorView x, TensorView delta, TensorView w, float eps, TensorView y) override {
    inner_.add_rmsnorm(x, delta, w, eps, y);
  }
  void rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                     KvLayer kv) override {
    inner_.rope_store_kv(qkv, batch, shape, rope, kv);
  }
  void attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                 TensorView out) override {
    inner_.attention(qkv, batch, shape, kv, out);
  }
  void silu_mul(TensorView gate_up, TensorView y) override { inner_.silu_mul(gate_up, y); }
  void gather_rows(TensorView x, TensorView rows, TensorView y) override { inner_.gather_rows(x, rows, y); }
  bool samples_on_device() const override { return inner_.samples_on_device(); }
  void sample(TensorView logits, const SamplingView& view) override { inner_.sample(logits, view); }
  void count_tokens(TensorView tokens, int32_t n_prompt, TensorView counts) override {
    inner_.count_tokens(tokens, n_prompt, counts);
  }
  void take_tokens(TensorView ids, TensorView sources, TensorView tokens) override {
    inner_.take_tokens(ids, sources, tokens);
  }
  void start_read(int place, const std::byte* device, size_t bytes) override {
    inner_.start_read(place, device, bytes);
  }
  void finish_read(int place, std::span<std::byte> host) override { inner_.finish_read(place, host); }
  TensorView linear_add(TensorView x, const Matrix& w, TensorView y, TensorView scratch) override {
    return inner_.linear_add(x, w, y, scratch);
  }
  void norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                     std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv) override {
    inner_.norm_qkv_rope(x, delta, norm, eps, h, w, qkv, batch, shape, rope, kv);
  }
  void norm_gate_up_silu(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                         std::span<const Matrix> w, TensorView gate_up, TensorView y) override {
    inner_.norm_gate_up_silu(x, delta, norm, eps, h, w, gate_up, y);
  }

 private:
  Backend& inner_;
};

}  // namespace tramontane
