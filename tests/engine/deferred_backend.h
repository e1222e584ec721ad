// DeferredBackend: a device made of another backend. Operations, uploads included, only enter a queue and are
// carried out when something is waited for, and no further than that: what the engine launches ahead is
// really ahead. It samples, by the host's sampler. Whoever looks at device memory too early sees old values.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <functional>
#include <limits>
#include <stdexcept>
#include <vector>

#include "tests/support/forwarding_backend.h"
#include "tests/support/reference_sampling.h"

namespace tramontane {

class DeferredBackend : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  int most_ahead = 0;                                    // steps launched and not read, at most
  int n_reads = 0;                                       // steps
  int fail_in_step = -1;                                 // the launch of this step throws
  int spoil_in_step = -1;                                // a logit of this step's first row becomes NaN
  std::function<void(int step)> on_launch = [](int) {};  // on the engine's thread

  bool samples_on_device() const override { return true; }
  void upload(std::byte* device, std::span<const std::byte> host) override {
    later([this, device, bytes = std::vector(host.begin(), host.end())] {
      ForwardingBackend::upload(device, bytes);
    });
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    while (!queue_.empty()) run_next();
    ForwardingBackend::download(device, host);
  }

  void begin_step(const BatchView& batch) override {
    if (n_reads == fail_in_step) throw std::runtime_error("device lost");
    on_launch(n_reads);
    later([this, batch] { ForwardingBackend::begin_step(batch); });
  }
  void end_step() override {
    later([this] { ForwardingBackend::end_step(); });
  }
  void embed(TensorView tokens, const Matrix& table, TensorView x) override {
    later([=, this, table = &table] { ForwardingBackend::embed(tokens, *table, x); });
  }
  void linear(TensorView x, const Matrix& w, TensorView y) override {
    later([=, this, w = &w] { ForwardingBackend::linear(x, *w, y); });
  }
  void add_rmsnorm(TensorView x, TensorView delta, TensorView w, float eps, TensorView y) override {
    later([=, this] { ForwardingBackend::add_rmsnorm(x, delta, w, eps, y); });
  }
  void rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                     KvLayer kv) override {
    later([=, this] { ForwardingBackend::rope_store_kv(qkv, batch, shape, rope, kv); });
  }
  void attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                 TensorView out) override {
    later([=, this] { ForwardingBackend::attention(qkv, batch, shape, kv, out); });
  }
  void silu_mul(TensorView gate_up, TensorView y) override {
    later([=, this] { ForwardingBackend::silu_mul(gate_up, y); });
  }
  void gather_rows(TensorView x, TensorView rows, TensorView y) override {
    later([=, this] { ForwardingBackend::gather_rows(x, rows, y); });
  }

  // Of the operations above, which only enter the queue.
  TensorView linear_add(TensorView x, const Matrix& w, TensorView y, TensorView scratch) override {
    return Backend::linear_add(x, w, y, scratch);
  }
  void norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                     std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv) override {
    Backend::norm_qkv_rope(x, delta, norm, eps, h, w, qkv, batch, shape, rope, kv);
  }
  void norm_gate_up_silu(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                         std::span<const Matrix> w, TensorView gate_up, TensorView y) override {
    Backend::norm_gate_up_silu(x, delta, norm, eps, h, w, gate_up, y);
  }

  void sample(TensorView logits, const SamplingView& view) override {
    later([=, this, spoil = n_reads == spoil_in_step] { sample_now(logits, view, spoil); });
  }
  void count_tokens(TensorView tokens, int32_t n_prompt, TensorView counts) override {
    later([=] {
      auto* row = counts.row<int32_t>(0);
      std::fill_n(row, counts.cols, 0);
      for (int64_t i = 0; i < tokens.cols; ++i) {
        int32_t& count = row[tokens.row<int32_t>(0)[i]];
        count = i < n_prompt ? count | 1 : count + 2;
      }
    });
  }
  void take_tokens(TensorView ids, TensorView sources, TensorView tokens) override {
    later([=] {
      for (int64_t i = 0; i < sources.cols; ++i) {
        const int32_t source = sources.row<int32_t>(0)[i];
        if (source >= 0) tokens.row<int32_t>(0)[i] = std::max(ids.row<int32_t>(0)[source], 0);
      }
    });
  }
  void start_read(int place, const std::byte* device, size_t bytes) override {
    Read& read = reads_.at(static_cast<size_t>(place));
    if (read.started) throw std::logic_error("a place is read twice");
    read.started = true;
    read.done = false;
    later([&read, device, bytes] {
      read.bytes.assign(device, device + bytes);
      read.done = true;
    });
    ++n_reads;
    most_ahead = std::max(most_ahead, int{reads_[0].started} + int{reads_[1].started});
  }
  void finish_read(int place, std::span<std::byte> host) override {
    Read& read = reads_.at(static_cast<size_t>(place));
    if (!read.started) throw std::logic_error("nothing is read in this place");
    while (!read.done) run_next();
    if (host.size() != read.bytes.size()) throw std::logic_error("another size is read");
    std::copy(read.bytes.begin(), read.bytes.end(), host.begin());
    read.started = false;
  }

 private:
  struct Read {
    bool started = false, done = false;
    std::vector<std::byte> bytes;
  };

  template <typename F>
  void later(F operation) {
    queue_.push_back(std::move(operation));
  }
  void run_next() {
    const auto operation = std::move(queue_.front());
    queue_.pop_front();
    operation();
  }

  void sample_now(TensorView logits, const SamplingView& view, bool spoil) {
    if (spoil) logits.row<float>(view.rows[0].logits_row)[5] = std::numeric_limits<float>::quiet_NaN();
    Sampler sampler(static_cast<int32_t>(logits.cols));
    const auto vocab = static_cast<size_t>(logits.cols);
    for (int32_t i = 0; i < view.n_rows; ++i) {
      const SamplingRow& row = view.rows[i];
      std::span<int32_t> counts;
      if (row.counts_row >= 0) counts = {view.counts.row<int32_t>(row.counts_row), vocab};
      const int32_t id = reference_sample(
          sampler, row, {logits.row<float>(row.logits_row), vocab},
          std::span(view.biases + row.first_bias, view.biases + row.first_bias + row.n_biases), counts);
      if (id >= 0 && !counts.empty()) counts[static_cast<size_t>(id)] += 2;
      view.ids.row<int32_t>(0)[i] = id;
    }
    for (int64_t row = 0; row < logits.rows; ++row) std::fill_n(logits.row<float>(row), logits.cols, -1e9f);
  }

  std::deque<std::function<void()>> queue_;
  std::array<Read, 2> reads_;
};

}  // namespace tramontane
