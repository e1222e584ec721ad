#include "cuda/cuda_backend.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "cuda/attention.h"
#include "cuda/check.cuh"
#include "cuda/cublas_gemm.h"
#include "cuda/device.h"
#include "cuda/device_buffer.h"
#include "cuda/graph_plan.h"
#include "cuda/linear.h"
#include "cuda/read_places.h"
#include "cuda/rope.h"
#include "cuda/rowwise.h"
#include "cuda/sampling.h"
#include "cuda/staging.h"
#include "cuda/step_graphs.h"
#include "cuda/weight_loader.h"
#include "engine/backend/backend_checks.h"
#include "engine/backend/check.h"

namespace tramontane {
namespace cuda {
namespace {

// A step's arrays and a model's small tensors: some hundred KB a step, so that a slot is waited for only when
// the host is several steps ahead.
constexpr int kSmallSlots = 4;
constexpr size_t kSmallSlotBytes = size_t{1} << 20;
// Results on their way back: an answer's logits come in a few pieces.
constexpr size_t kDownloadBytes = size_t{4} << 20;
// A step's ids, of as many sequences as --max-sequences allows.
constexpr size_t kReadBytes = size_t{4096} * sizeof(int32_t);
// Kernels come to the device with the weights that take them, after memory was planned. The code of all of
// them is 8 MB on any architecture; the rest is room for what a driver keeps beside it.
constexpr uint64_t kKernelBytes = uint64_t{64} << 20;

// With CUDA_LAUNCH_BLOCKING=1 a launch waits for its kernel, so that a fault is told by the operation that
// has it. A graph would tell it of the whole step: then every step is launched kernel by kernel.
CudaOptions with_environment(CudaOptions options) {
  const char* blocking = std::getenv("CUDA_LAUNCH_BLOCKING");
  if (blocking != nullptr && std::string_view(blocking) == "1") options.graphs = false;
  return options;
}

Fingerprint& add(Fingerprint& print, TensorView view) {
  return print.add(view.data).add(view.rows).add(view.cols).add(view.row_stride);
}

// What an operation launches, in one number.
template <typename... Views>
uint64_t fingerprint(const char* name, const void* weights, Views... views) {
  Fingerprint print(name);
  print.add(weights);
  (add(print, views), ...);
  return print.value();
}

class CudaBackend final : public Backend, public CudaBackendInfo {
 public:
  CudaBackend(const CudaOptions& options, DeviceInfo device)
      : options_(with_environment(options)),
        device_(std::move(device)),
        small_(kSmallSlots, kSmallSlotBytes),
        results_(1, kDownloadBytes),
        reads_(kReadBytes) {
    CUDA_CHECK(cudaStreamCreateWithFlags(&compute_, cudaStreamNonBlocking), "the compute stream");
    load_rowwise_kernels();
    load_rope_kernels();
    load_sampling_kernels();
    if (options.cublas_rows > 0) cublas_.emplace(compute_, options.cublas_rows);
  }
  ~CudaBackend() override {
    cudaStreamSynchronize(compute_);
    cublas_.reset();
    cudaStreamDestroy(compute_);
  }

  std::string description() const override {
    return "cuda (" + device_.name + ", compute capability " + std::to_string(device_.compute_major) + "." +
           std::to_string(device_.compute_minor) + (cublas_ ? ", cuBLAS" : "") + ")";
  }
  DType act_dtype() const override { return DType::bf16; }

  // --- memory

  MemoryBudget memory() const override {
    use_device();
    size_t free = 0, total = 0;
    CUDA_CHECK(cudaMemGetInfo(&free, &total), "the memory plan");
    const uint64_t limit = options_.memory_bytes != 0
                               ? options_.memory_bytes
                               : static_cast<uint64_t>(options_.memory_share * static_cast<double>(total));
    const uint64_t left = limit - std::min(limit, device_bytes_allocated());
    const uint64_t there = free - std::min<uint64_t>(free, kKernelBytes);
    return {.bytes = std::max<uint64_t>(1, std::min(left, there)),  // 0 would be: cannot tell
            .dedicated = true,
            .remedy = left <= there ? "raise --gpu-memory" : "end other programs on this GPU"};
  }
  uint64_t matrix_bytes(const HostMatrix& matrix) const override { return device_bytes_for(matrix); }
  StepMemory step_memory(const StepLimits& limits, const AttentionShape& shape) const override {
    return {
        .scratch = device_bytes_for(workspace_bytes(limits, shape)) + (cublas_ ? cublas_->device_bytes() : 0),
        .graphs = options_.graphs ? kGraphBytes * graph_count(limits.max_sequences, limits.max_kv) : 0};
  }
  void reserve(const StepLimits& limits, const AttentionShape& shape) override {
    use_device();
    weights_.release();  // loading is over
    load_attention_kernels(shape);
    reserve_workspace(workspace_bytes(limits, shape));
    graphs_.keep_at_most(graph_count(limits.max_sequences, limits.max_kv));
    if (cublas_) cublas_->reserve();
  }
  int32_t padded_rows(int32_t rows, int32_t most) const override {
    return options_.graphs && rows <= kMostGraphRows ? std::min(graph_rows(rows), most) : rows;
  }

  Buffer allocate(size_t bytes, std::string_view label) override {
    use_device();
    Buffer buffer = allocate_device(bytes, label);
    CUDA_CHECK(cudaMemsetAsync(buffer.data(), 0, buffer.size(), compute_), label);
    return buffer;
  }

  Matrix upload_matrix(const HostMatrix& matrix, std::string_view label) override {
    use_device();
    try {
      Matrix packed = weights_.load(matrix, label, compute_);
      load_linear_kernels(packed);
      return packed;
    } catch (const DeviceError&) {
      throw;
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(std::string(label) + ": " + error.what());
    }
  }

  void upload(std::byte* device, std::span<const std::byte> host) override {
    use_device();
    CHECK(!graphs_.is_capturing(), "an upload within a step");
    while (!host.empty()) {
      const size_t bytes = std::min(host.size(), kSmallSlotBytes);
      std::byte* place = small_.place(bytes, compute_);
      std::memcpy(place, host.data(), bytes);
      CUDA_CHECK(cudaMemcpyAsync(device, place, bytes, cudaMemcpyHostToDevice, compute_), "upload");
      device += bytes;
      host = host.subspan(bytes);
    }
  }

  void download(const std::byte* device, std::span<std::byte> host) override {
    use_device();
    if (host.empty()) CUDA_CHECK(cudaStreamSynchronize(compute_), "a step");
    while (!host.empty()) {
      const size_t bytes = std::min(host.size(), kDownloadBytes);
      const std::span<std::byte> place = results_.next();
      CUDA_CHECK(cudaMemcpyAsync(place.data(), device, bytes, cudaMemcpyDeviceToHost, compute_), "download");
      CUDA_CHECK(cudaStreamSynchronize(compute_), "a step's results");
      std::memcpy(host.data(), place.data(), bytes);
      device += bytes;
      host = host.subspan(bytes);
    }
  }

  // --- steps

  void begin_step(const BatchView& batch) override {
    use_device();
    step_ = batch;
    // Every sequence decodes, in one of the sizes that Batch pads to.
    const bool decodes = options_.graphs && batch.n_tokens == batch.n_seqs && batch.n_tokens > 0 &&
                         batch.max_q == 1 && batch.n_logits == batch.n_tokens &&
                         batch.n_tokens <= kMostGraphRows;
    if (!decodes) return graphs_.begin(compute_, std::nullopt);
    // Geometry is that of the longest sequence which the graph serves.
    step_.max_kv = static_cast<int32_t>(
        std::min<int64_t>(graph_keys(batch.max_kv), batch.block_table.cols * kBlockTokens));
    in_step_ = true;
    graphs_.begin(compute_, StepGraphs::Key{.batch = batch.tokens.data,
                                            .n_tokens = batch.n_tokens,
                                            .n_logits = batch.n_logits,
                                            .max_kv = step_.max_kv});
  }
  void end_step() override {
    in_step_ = false;
    graphs_.end(compute_);
    if (!graph_memory_checked_ && graphs_.measured_bytes()) check_graph_memory(*graphs_.measured_bytes());
    if (!graph_refusal_told_ && graphs_.n_refused() > 0) tell_graph_refusal();
  }

  // --- operations

  void embed(TensorView tokens, const Matrix& table, TensorView x) override {
    check_embed(tokens, table, x);
    run(x.rows, fingerprint("embed", table.codes.data(), tokens, x),
        [=, this, &table] { launch_embed(compute_, tokens, table, x); });
  }
  void linear(TensorView x, const Matrix& w, TensorView y) override {
    check_linear(x, w, y, DType::bf16);
    if (is_for_cublas(x, w, y)) return cublas_->multiply(x, w, y, false);
    run(x.rows, fingerprint("linear", w.codes.data(), x, y),
        [=, this, &w] { launch_linear(compute_, x, w, y); });
  }
  TensorView linear_add(TensorView x, const Matrix& w, TensorView y, TensorView) override {
    check_linear(x, w, y, DType::bf16);
    if (is_for_cublas(x, w, y)) {
      cublas_->multiply(x, w, y, true);
    } else {
      run(x.rows, fingerprint("linear_add", w.codes.data(), x, y),
          [=, this, &w] { launch_linear_add(compute_, x, w, y); });
    }
    return {};
  }
  void add_rmsnorm(TensorView x, TensorView delta, TensorView w, float eps, TensorView y) override {
    check_add_rmsnorm(x, delta, w, y, DType::bf16);
    run(x.rows, fingerprint("add_rmsnorm", w.data, x, delta, y),
        [=, this] { launch_add_rmsnorm(compute_, x, delta, w, eps, y); });
  }
  void rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                     KvLayer kv) override {
    check_rope_store_kv(qkv, batch, shape, rope, kv);
    run(qkv.rows, fingerprint("rope_store_kv", kv.data, qkv, rope, batch.positions, batch.slots),
        [=, this] { launch_rope_store_kv(compute_, qkv, batch, shape, rope, kv); });
  }
  void attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                 TensorView out) override {
    check_attention(qkv, batch, shape, kv, out, DType::bf16);
    const BatchView b = in_step_ ? step_ : batch;
    run(qkv.rows, fingerprint("attention", kv.data, qkv, out, b.kv_lens, b.block_table, b.q_starts),
        [=, this] {
          reserve_workspace(attention_workspace_bytes(shape, b.n_tokens, b.n_seqs, b.max_kv));
          launch_attention(compute_, qkv, b, shape, kv, out, workspace_.data());
        });
  }
  void silu_mul(TensorView gate_up, TensorView y) override {
    check_silu_mul(gate_up, y, DType::bf16);
    run(y.rows, fingerprint("silu_mul", nullptr, gate_up, y),
        [=, this] { launch_silu_mul(compute_, gate_up, y); });
  }
  void gather_rows(TensorView x, TensorView rows, TensorView y) override {
    check_gather_rows(x, rows, y);
    run(y.rows, fingerprint("gather_rows", nullptr, x, rows, y),
        [=, this] { launch_gather_rows(compute_, x, rows, y); });
  }

  // --- sampling: after the step, outside of its graph

  bool samples_on_device() const override { return true; }
  void sample(TensorView logits, const SamplingView& view) override {
    use_device();
    launch_sample(compute_, logits, view);
  }
  void count_tokens(TensorView tokens, int32_t n_prompt, TensorView counts) override {
    use_device();
    launch_count_tokens(compute_, tokens, n_prompt, counts);
  }
  void take_tokens(TensorView ids, TensorView sources, TensorView tokens) override {
    use_device();
    launch_take_tokens(compute_, ids, sources, tokens);
  }
  void start_read(int place, const std::byte* device, size_t bytes) override {
    use_device();
    reads_.start(place, device, bytes, compute_);
  }
  void finish_read(int place, std::span<std::byte> host) override {
    use_device();
    reads_.finish(place, host);
  }

  // --- fused operations: one launch up to kFusedRows, the norm and one more above

  void norm_qkv_rope(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                     std::span<const Matrix> w, TensorView qkv, const BatchView& batch,
                     const AttentionShape& shape, TensorView rope, KvLayer kv) override {
    const bool one = w.size() == 1;
    const auto print = [&](const char* name, TensorView in) {
      return fingerprint(name, w[0].codes.data(), in, norm, qkv, rope, batch.positions, batch.slots,
                         TensorView{.data = kv.data});
    };
    if (one && delta.empty() && can_fuse_norm(x, norm, w[0])) {
      check_rope_store_kv(qkv, batch, shape, rope, kv);
      run(x.rows, print("norm_qkv_rope", x),
          [=, this] { launch_norm_qkv_rope(compute_, x, norm, eps, w[0], qkv, batch, shape, rope, kv); });
    } else if (one && can_fuse_rope(h) && !is_for_cublas(h, w[0], qkv)) {
      check_linear(h, w[0], qkv, DType::bf16);
      check_rope_store_kv(qkv, batch, shape, rope, kv);
      add_rmsnorm(x, delta, norm, eps, h);
      run(x.rows, print("qkv_rope", h),
          [=, this] { launch_qkv_rope(compute_, h, w[0], qkv, batch, shape, rope, kv); });
    } else {
      Backend::norm_qkv_rope(x, delta, norm, eps, h, w, qkv, batch, shape, rope, kv);
    }
  }
  void norm_gate_up_silu(TensorView x, TensorView delta, TensorView norm, float eps, TensorView h,
                         std::span<const Matrix> w, TensorView gate_up, TensorView y) override {
    const bool one = w.size() == 1;
    if (one && delta.empty() && can_fuse_gate_up(x, norm, w[0], y)) {
      check_silu_mul(gate_up, y, DType::bf16);
      run(x.rows, fingerprint("norm_gate_up_silu", w[0].codes.data(), x, norm, y),
          [=, this] { launch_norm_gate_up_silu(compute_, x, norm, eps, w[0], y); });
    } else if (one && can_fuse_silu(h, w[0], y) && !is_for_cublas(h, w[0], gate_up)) {
      check_linear(h, w[0], gate_up, DType::bf16);
      check_silu_mul(gate_up, y, DType::bf16);
      add_rmsnorm(x, delta, norm, eps, h);
      run(x.rows, fingerprint("gate_up_silu", w[0].codes.data(), h, y),
          [=, this] { launch_gate_up_silu(compute_, h, w[0], y); });
    } else {
      Backend::norm_gate_up_silu(x, delta, norm, eps, h, w, gate_up, y);
    }
  }

  int n_graphs() const override { return graphs_.n_graphs(); }
  uint64_t n_replays() const override { return graphs_.n_replays(); }

 private:
  // The current device is the thread's: the one that loads and the engine's are two.
  void use_device() const {
    static thread_local int current = -1;
    if (current == device_.index) return;
    CUDA_CHECK(cudaSetDevice(device_.index), "the choice of " + device_.name);
    current = device_.index;
  }

  // `launch` holds what an operation was given by value, but for weights, which outlive the step.
  template <typename Launch>
  void run(int64_t rows, uint64_t print, const Launch& launch) {
    if (rows > 0) graphs_.run(print, launch);
  }

  // The plan was made with an estimate: who has less memory than it says should hear of it.
  void check_graph_memory(uint64_t bytes) {
    graph_memory_checked_ = true;
    const uint64_t each = bytes / StepGraphs::kMeasured;
    if (each <= kGraphBytes) return;
    spdlog::warn(
        "captured steps take {} KiB of GPU memory each, the memory plan has {} KiB: if memory runs out, "
        "lower --gpu-memory",
        each >> 10, kGraphBytes >> 10);
  }

  void tell_graph_refusal() {
    graph_refusal_told_ = true;
    spdlog::warn(
        "no GPU memory for a captured decode step: steps of its size are launched kernel by kernel, which is "
        "slower; lower --gpu-memory or --kv-cache-bytes, or end other programs on this GPU");
  }

  // Decode steps are captured, and keep their bits.
  bool is_for_cublas(TensorView x, const Matrix& w, TensorView y) const {
    return cublas_ && !in_step_ && cublas_->takes(x, w, y);
  }

  static size_t workspace_bytes(const StepLimits& limits, const AttentionShape& shape) {
    return attention_workspace_bytes(shape, limits.max_tokens, limits.max_sequences,
                                     graph_keys(limits.max_kv));
  }
  void reserve_workspace(size_t bytes) {
    if (bytes <= workspace_.size()) return;
    CHECK(!graphs_.is_capturing(), "a step needs more workspace than was reserved");
    workspace_ = {};
    workspace_ = allocate(bytes, "attention workspace");  // zeroed: it begins with counters
  }

  const CudaOptions options_;
  const DeviceInfo device_;
  cudaStream_t compute_ = nullptr;
  StagingRing small_, results_;
  ReadPlaces reads_;
  WeightLoader weights_;
  Buffer workspace_;
  std::optional<CublasGemm> cublas_;  // with --prefill-gemm cublas
  StepGraphs graphs_;
  bool graph_memory_checked_ = false, graph_refusal_told_ = false;
  BatchView step_;        // of a decode step: the geometry that its graph has
  bool in_step_ = false;  // a decode step
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  const cuda::DeviceProbe probe = cuda::probe_device(options.device);
  if (!probe.device) throw std::runtime_error(probe.why_not);
  return std::make_unique<cuda::CudaBackend>(options, *probe.device);
}

}  // namespace tramontane
