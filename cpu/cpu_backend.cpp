#include "cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "cpu/aligned_buffer.h"
#include "cpu/attention.h"
#include "cpu/cpu_features.h"
#include "cpu/kernels.h"
#include "cpu/linear.h"
#include "cpu/thread_pool.h"
#include "engine/backend/backend_checks.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace {

// Less work than this many elements is done by the calling thread: waking the others would take longer.
constexpr int64_t kShareFrom = 16384;
// Elements of silu_mul that one thread does at a time, so that a single row can be shared as well.
constexpr int64_t kSiluBlock = 1024;

// Every kernel set on one screen: slowest first.
struct KernelSet {
  std::string_view name;
  bool CpuFeatures::*needs;  // null: runs anywhere
  const CpuKernels& (*kernels)();
  const Linear& (*linear)();
};
constexpr KernelSet kKernelSets[] = {
    {"scalar", nullptr, scalar_kernels, scalar_linear},
    {"avx2", &CpuFeatures::avx2, avx2_kernels, avx2_linear},
    {"avx512", &CpuFeatures::avx512, avx512_kernels, avx512_linear},
    {"avx512vnni", &CpuFeatures::avx512vnni, avx512_kernels, avx512vnni_linear},
    {"avx512bf16", &CpuFeatures::avx512bf16, avx512_kernels, avx512bf16_linear},
    {"amxbf16", &CpuFeatures::amx, avx512_kernels, plain_amx_linear},
    {"amx", &CpuFeatures::amx, avx512_kernels, amx_linear},
};

bool can_run(const KernelSet& set) {
  return set.needs == nullptr || cpu_features().*set.needs;
}

// Chosen by what the processor is, never by a measurement: the same machine always gives the same bits.
// Intel's vdpbf16ps runs at half the rate of FP32 FMA (cpu/README.md), so there the BF16 set is not the best.
const KernelSet& best_kernel_set() {
  const KernelSet* best = nullptr;
  for (const KernelSet& set : kKernelSets) {
    const bool by_name_only = cpu_features().intel && set.name == "avx512bf16";
    if (can_run(set) && !by_name_only) best = &set;
  }
  return *best;
}

const KernelSet& find_kernel_set(const std::string& name) {
  if (name.empty()) return best_kernel_set();
  for (const KernelSet& set : kKernelSets) {
    if (set.name != name) continue;
    if (!can_run(set)) throw std::runtime_error("cpu kernels: this processor cannot run \"" + name + "\"");
    return set;
  }
  std::string known;
  for (const KernelSet& set : kKernelSets) known += (known.empty() ? "" : ", ") + std::string(set.name);
  throw std::runtime_error("cpu kernels: \"" + name + "\" is unknown; there are " + known);
}

class CpuBackend : public Backend {
 public:
  CpuBackend(std::string name, DType act_dtype, const CpuKernels& kernels, const Linear& linear, int threads)
      : name_(std::move(name)),
        act_dtype_(act_dtype),
        kernels_(kernels),
        linear_(linear),
        pool_(threads),
        attention_(kernels, act_dtype, pool_) {}

  std::string description() const override {
    const int n = pool_.size();
    return "cpu (" + name_ + ", " + std::to_string(n) + (n == 1 ? " thread)" : " threads)");
  }
  DType act_dtype() const override { return act_dtype_; }

  uint64_t matrix_bytes(const HostMatrix& matrix) const override { return linear_.packed_bytes(matrix); }
  Buffer allocate(size_t bytes, std::string_view label) override { return allocate_aligned(bytes, label); }

  Matrix upload_matrix(const HostMatrix& matrix, std::string_view label) override {
    try {
      return linear_.pack(matrix, pool_);
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(std::string(label) + ": " + error.what());
    }
  }
  void upload(std::byte* device, std::span<const std::byte> host) override {
    if (!host.empty()) std::memcpy(device, host.data(), host.size());
  }
  void download(const std::byte* device, std::span<std::byte> host) override {
    if (!host.empty()) std::memcpy(host.data(), device, host.size());
  }

  void begin_step(const BatchView&) override {}
  void end_step() override {}

  void embed(TensorView tokens, const Matrix& table, TensorView x) override {
    check_embed(tokens, table, x);
    const int32_t* ids = tokens.row<int32_t>(0);
    for_each(x.rows, x.cols, [&](int64_t t) { linear_.read_row(table, ids[t], x.row<float>(t)); });
  }

  void linear(TensorView x, const Matrix& w, TensorView y) override {
    check_linear(x, w, y, act_dtype_);
    if (x.rows > 0) linear_.multiply(x, w, y, pool_);
  }

  void add_rmsnorm(TensorView x, TensorView delta, TensorView w, float eps, TensorView y) override {
    check_add_rmsnorm(x, delta, w, y, act_dtype_);
    for_each(x.rows, x.cols, [&](int64_t t) {
      const float* added = delta.empty() ? nullptr : delta.row<float>(t);
      kernels_.add_rmsnorm(x.row<float>(t), added, w.row<float>(0), eps, element(y, t, 0), x.cols);
    });
  }

  void rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                     KvLayer kv) override {
    check_rope_store_kv(qkv, batch, shape, rope, kv);
    const int64_t half_block = shape.kv_cols() * kBlockTokens * static_cast<int64_t>(size_of(act_dtype_));
    const int32_t* positions = batch.positions.row<int32_t>(0);
    const int32_t* slots = batch.slots.row<int32_t>(0);
    for_each(qkv.rows, qkv.cols, [&](int64_t t) {
      std::byte* block = kv.data + slots[t] / kBlockTokens * 2 * half_block;
      kernels_.rope_store_kv({qkv.row<float>(t), rope.row<float>(positions[t]), block, block + half_block,
                              shape.n_heads, shape.n_kv_heads, shape.head_dim, slots[t] % kBlockTokens});
    });
  }

  void attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                 TensorView out) override {
    check_attention(qkv, batch, shape, kv, out, act_dtype_);
    attention_.run(qkv, batch, shape, kv, out);
  }

  void silu_mul(TensorView gate_up, TensorView y) override {
    check_silu_mul(gate_up, y, act_dtype_);
    const int64_t blocks = (y.cols + kSiluBlock - 1) / kSiluBlock;
    for_each(y.rows * blocks, kSiluBlock, [&](int64_t i) {
      const int64_t t = i / blocks, first = i % blocks * kSiluBlock;
      const float* gate = gate_up.row<float>(t) + first;
      kernels_.silu_mul(gate, gate + y.cols, element(y, t, first), std::min(kSiluBlock, y.cols - first));
    });
  }

  void gather_rows(TensorView x, TensorView rows, TensorView y) override {
    check_gather_rows(x, rows, y);
    const int32_t* chosen = rows.row<int32_t>(0);
    for (int64_t i = 0; i < y.rows; ++i) {
      std::memcpy(y.row<float>(i), x.row<float>(chosen[i]), static_cast<size_t>(x.cols) * sizeof(float));
    }
  }

 private:
  // Calls unit(i) for i in 0..count, each once, shared among the threads where units of `size` elements make
  // that worth while.
  template <typename Unit>
  void for_each(int64_t count, int64_t size, const Unit& unit) {
    if (count * size < kShareFrom || count < 2) {
      for (int64_t i = 0; i < count; ++i) unit(i);
      return;
    }
    pool_.run([&](int thread) {
      const Share share = share_of(count, thread, pool_.size());
      for (int64_t i = share.first; i < share.last; ++i) unit(i);
    });
  }

  static std::byte* element(TensorView view, int64_t row, int64_t column) {
    return view.data + (row * view.row_stride + column) * static_cast<int64_t>(size_of(view.dtype));
  }

  const std::string name_;
  const DType act_dtype_;
  const CpuKernels& kernels_;
  const Linear& linear_;
  ThreadPool pool_;
  PagedAttention attention_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  if (options.threads < 0)
    throw std::runtime_error("cpu threads: " + std::to_string(options.threads) + " is negative");
  const int threads = options.threads == 0 ? available_cores() : options.threads;
  if (options.f32) {
    if (!options.kernels.empty() && options.kernels != "scalar") {
      throw std::runtime_error("cpu kernels: F32 arithmetic runs on \"scalar\" alone, not on \"" +
                               options.kernels + "\"");
    }
    return std::make_unique<CpuBackend>("scalar f32", DType::f32, scalar_f32_kernels(), scalar_f32_linear(),
                                        threads);
  }
  const KernelSet& set = find_kernel_set(options.kernels);
  return std::make_unique<CpuBackend>(std::string(set.name), DType::bf16, set.kernels(), set.linear(),
                                      threads);
}

std::vector<std::string> available_cpu_kernels() {
  std::vector<std::string> names;
  for (const KernelSet& set : kKernelSets) {
    if (can_run(set)) names.emplace_back(set.name);
  }
  return names;
}

}  // namespace tramontane
