#include "engine/backend/backend.h"

#include <stdexcept>

#include "engine/backend/host_memory.h"

namespace tramontane {

MemoryBudget Backend::memory() const {
  return {.bytes = host_available_bytes()};
}

uint64_t Backend::matrix_bytes(const HostMatrix& matrix) const {
  return matrix.codes.size() + matrix.scales.size() + matrix.biases.size();
}

namespace {

[[noreturn]] void does_not_sample(const Backend& backend) {
  throw std::logic_error(backend.description() + " does not sample: ask samples_on_device() first");
}

}  // namespace

void Backend::sample(TensorView, const SamplingView&) {
  does_not_sample(*this);
}
void Backend::count_tokens(TensorView, int32_t, TensorView) {
  does_not_sample(*this);
}
void Backend::take_tokens(TensorView, TensorView, TensorView) {
  does_not_sample(*this);
}
void Backend::start_read(int, const std::byte*, size_t) {
  does_not_sample(*this);
}
void Backend::finish_read(int, std::span<std::byte>) {
  does_not_sample(*this);
}

void Backend::linear_stacked(TensorView x, std::span<const Matrix> w, TensorView y) {
  int64_t first = 0;
  for (const Matrix& part : w) {
    linear(x, part, y.columns(first, part.n));
    first += part.n;
  }
}

TensorView Backend::linear_add(TensorView x, const Matrix& w, TensorView, TensorView scratch) {
  linear(x, w, scratch);
  return scratch;
}

void Backend::norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                            std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                            const AttentionShape& shape, TensorView rope, KvLayer kv) {
  add_rmsnorm(x, delta, norm, eps, h);
  linear_stacked(h, w, qkv);
  rope_store_kv(qkv, batch, shape, rope, kv);
}

void Backend::norm_gate_up_silu(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                                std::span<const Matrix> w, TensorView gate_up, TensorView y) {
  add_rmsnorm(x, delta, norm, eps, h);
  linear_stacked(h, w, gate_up);
  silu_mul(gate_up, y);
}

}  // namespace tramontane
