#include <algorithm>
#include <memory>
#include <numeric>

#include "cuda/cublas_gemm.h"
#include "cuda/linear.h"
#include "cuda/pack.h"
#include "tests/bench/cuda_cases.h"

namespace tramontane::cuda {
namespace {

struct Format {
  std::string name;
  std::optional<QuantLayout> quant;
  DType scale_dtype = DType::f32;
};

QuantLayout layout(int bits, int group, bool bias, int zero) {
  QuantLayout q{.bits = bits, .group = group, .has_bias = bias, .code_zero = zero, .table = {}};
  for (int i = 0; i < 16; ++i) q.table[static_cast<size_t>(i)] = static_cast<float>(i - zero);
  return q;
}
QuantLayout bitsandbytes_fp4() {
  QuantLayout q = layout(4, 64, false, 0);
  const float numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i) q.table[i] = (i < 8 ? 1.0f : -1.0f) * numerators[i % 8] / 192.0f;
  return q;
}
// Any codebook takes NF4's kernel; these are not its values.
QuantLayout codebook() {
  QuantLayout q = layout(4, 64, false, 0);
  for (size_t i = 0; i < 16; ++i) q.table[i] = static_cast<float>(i * i) / 256.0f;
  return q;
}

std::vector<Format> formats() {
  return {{"bf16", {}},
          {"fp4", bitsandbytes_fp4()},
          {"nf4", codebook()},
          {"mlx4", layout(4, 64, true, 0), DType::bf16},
          {"mlx8", layout(8, 64, true, 0), DType::bf16},
          {"q4_0", layout(4, 32, false, 8), DType::f16},
          {"q4_1", layout(4, 32, true, 0), DType::f16},
          {"q8_0", layout(8, 32, false, 128), DType::f16}};
}

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {{"qkv", 6144, 4096},
                             {"o", 4096, 4096},
                             {"gate_up", 28672, 4096},
                             {"down", 4096, 14336},
                             {"lm_head", 32768, 4096}};

enum class Kind { linear, linear_add, cublas, qkv_rope, norm_qkv_rope, gate_up_silu, norm_gate_up_silu };

constexpr AttentionShape kHeads{.n_heads = 32, .n_kv_heads = 8, .head_dim = 128, .sliding_window = 0};

// What a launch works on; made when a case is.
struct Product {
  Kind kind;
  Format format;
  Shape shape;
  int64_t rows;
  size_t copies;
  std::vector<Matrix> weights;
  Buffer x, norm, y, positions, slots, rope, pages;
  std::unique_ptr<CublasGemm> gemm;
  Stream gemm_stream = nullptr;

  bool has_norm() const { return kind == Kind::norm_qkv_rope || kind == Kind::norm_gate_up_silu; }
  bool has_rope() const { return kind == Kind::qkv_rope || kind == Kind::norm_qkv_rope; }
  bool has_silu() const { return kind == Kind::gate_up_silu || kind == Kind::norm_gate_up_silu; }
  PackedLayout packed() const { return packed_layout(shape.n, shape.k, format.quant, format.scale_dtype); }
  size_t code_bytes() const { return size_t(packed().row_tiles) * packed().code_bytes_per_row_tile(); }
  size_t scale_bytes() const { return size_t(packed().row_tiles) * packed().scale_bytes_per_row_tile(); }
  size_t input_bytes() const { return has_norm() ? 4 : 2; }  // of an element of x
  // Of an element of y, of those that the weight makes; what is added to is also read.
  double output_bytes() const { return has_silu() ? 1 : kind == Kind::linear_add ? 8 : 4; }

  void make() {
    for (size_t i = 0; i < copies; ++i) {
      Matrix m;
      m.n = shape.n, m.k = shape.k, m.quant = format.quant, m.scale_dtype = format.scale_dtype;
      m.codes = random_device_bytes(code_bytes());
      if (format.quant) m.scales = random_device_bytes(scale_bytes());
      weights.push_back(std::move(m));
    }
    x = random_device_bytes(static_cast<size_t>(rows * shape.k) * input_bytes());
    y = zeroed_device_bytes(static_cast<size_t>(rows * shape.n) * 4);
    if (has_norm()) norm = random_device_bytes(static_cast<size_t>(shape.k) * 4);
    if (!has_rope()) return;
    std::vector<int32_t> slot(static_cast<size_t>(rows));
    std::iota(slot.begin(), slot.end(), 0);
    slots = device_integers(slot);
    positions = zeroed_device_bytes(slot.size() * 4);
    rope = random_device_bytes(static_cast<size_t>(kHeads.head_dim) * 4);
    pages = zeroed_device_bytes(static_cast<size_t>(n_blocks() * 2 * kHeads.kv_cols() * kBlockTokens) * 2);
  }
  int32_t n_blocks() const { return static_cast<int32_t>((rows + kBlockTokens - 1) / kBlockTokens); }

  // As --prefill-gemm cublas has it: unpacked first, with the same scratch. Made outside of a capture, by the
  // first launch on a stream.
  CublasGemm& cublas(Stream stream) {
    if (!gemm || stream != gemm_stream) {
      gemm = std::make_unique<CublasGemm>(stream, 1);
      gemm->reserve();
      gemm_stream = stream;
    }
    return *gemm;
  }

  void launch(Stream stream, size_t copy) {
    const Matrix& w = weights[copy];
    const TensorView in = x.view(has_norm() ? DType::f32 : DType::bf16, rows, shape.k);
    const TensorView weight = norm.view(DType::f32, 1, shape.k), out = y.view(DType::f32, rows, shape.n);
    const TensorView halves = y.view(DType::bf16, rows, shape.n / 2);
    switch (kind) {
      case Kind::linear:
        return launch_linear(stream, in, w, out);
      case Kind::linear_add:
        return launch_linear_add(stream, in, w, out);
      case Kind::cublas:
        return cublas(stream).multiply(in, w, out, false);
      case Kind::gate_up_silu:
        return launch_gate_up_silu(stream, in, w, halves);
      case Kind::norm_gate_up_silu:
        return launch_norm_gate_up_silu(stream, in, weight, 1e-5f, w, halves);
      case Kind::qkv_rope:
      case Kind::norm_qkv_rope:
        return launch_rope(stream, in, weight, w, out);
    }
  }

  void launch_rope(Stream stream, TensorView in, TensorView weight, const Matrix& w, TensorView out) {
    BatchView batch;
    batch.n_tokens = static_cast<int32_t>(rows);
    batch.positions = positions.view(DType::i32, 1, rows), batch.slots = slots.view(DType::i32, 1, rows);
    const TensorView turns = rope.view(DType::f32, 1, kHeads.head_dim);
    const KvLayer kv{pages.data(), n_blocks()};
    if (!has_norm()) return launch_qkv_rope(stream, in, w, out, batch, kHeads, turns, kv);
    launch_norm_qkv_rope(stream, in, weight, 1e-5f, w, out, batch, kHeads, turns, kv);
  }
};

Case case_of(const std::string& name, const Product& empty, size_t l2_bytes) {
  const size_t weights = empty.code_bytes() + empty.scale_bytes();
  const size_t copies = std::max<size_t>(2, 4 * l2_bytes / weights + 1);
  const auto rows = double(empty.rows), n = double(empty.shape.n), k = double(empty.shape.k);
  return {name + "/rows:" + std::to_string(empty.rows),
          double(weights) + rows * k * double(empty.input_bytes()) + rows * n * empty.output_bytes(),
          2.0 * rows * n * k, copies,
          [kind = empty.kind, format = empty.format, shape = empty.shape, count = empty.rows,
           copies]() -> Launch {
            auto made = std::make_shared<Product>();
            made->kind = kind, made->format = format, made->shape = shape;
            made->rows = count, made->copies = copies;
            made->make();
            return [made](Stream stream, size_t copy) { made->launch(stream, copy); };
          }};
}

// Rows of an embedding: what a step reads of the table is a row a token.
Case embed_case(const Format& format, int64_t rows) {
  const Shape shape = kShapes[4];
  Product empty{};
  empty.format = format, empty.shape = shape, empty.rows = rows;
  const double row = double(empty.code_bytes() + empty.scale_bytes()) / double(shape.n);
  return {"embed/" + format.name + "/rows:" + std::to_string(rows),
          double(rows) * (row + double(shape.k) * 4), 0, 1, [format, shape, rows]() -> Launch {
            auto made = std::make_shared<Product>();
            made->kind = Kind::linear, made->format = format, made->shape = shape;
            made->rows = rows, made->copies = 1;
            made->make();
            std::vector<int32_t> ids(static_cast<size_t>(rows));
            for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 7919 % 32768);
            made->slots = device_integers(ids);
            return [made, rows](Stream stream, size_t) {
              launch_embed(stream, made->slots.view(DType::i32, 1, rows), made->weights[0],
                           made->y.view(DType::f32, rows, made->shape.k));
            };
          }};
}

Product product(Kind kind, const Format& format, const Shape& shape, int64_t rows) {
  Product p{};
  p.kind = kind, p.format = format, p.shape = shape, p.rows = rows;
  return p;
}

}  // namespace

std::vector<Case> linear_cases(const DeviceLimits& limits) {
  std::vector<Case> cases;
  for (const Format& format : formats()) {
    for (const Shape& shape : kShapes) {
      for (const int64_t rows : {1, 4, 8, 16, 32, 64, 128, 256, 512, 2048})
        cases.push_back(case_of("linear/" + format.name + "/" + shape.name,
                                product(Kind::linear, format, shape, rows), limits.l2_bytes));
      // Where this line crosses that one is kCublasRows.
      for (const int64_t rows : {128, 256, 512, 2048})
        cases.push_back(case_of("cublas/" + format.name + "/" + shape.name,
                                product(Kind::cublas, format, shape, rows), limits.l2_bytes));
    }
    for (const Shape& shape : {kShapes[1], kShapes[3]}) {
      for (const int64_t rows : {1, 8, 64, 512})
        cases.push_back(case_of("linear_add/" + format.name + "/" + shape.name,
                                product(Kind::linear_add, format, shape, rows), limits.l2_bytes));
    }
    for (const int64_t rows : {16, 64, 128, 512, 2048}) {
      cases.push_back(case_of("qkv_rope/" + format.name, product(Kind::qkv_rope, format, kShapes[0], rows),
                              limits.l2_bytes));
      cases.push_back(case_of("gate_up_silu/" + format.name,
                              product(Kind::gate_up_silu, format, kShapes[2], rows), limits.l2_bytes));
    }
    for (const int64_t rows : {1, 64, 2048}) cases.push_back(embed_case(format, rows));
    for (const int64_t rows : {1, 4, 8}) {
      cases.push_back(case_of("norm_qkv_rope/" + format.name,
                              product(Kind::norm_qkv_rope, format, kShapes[0], rows), limits.l2_bytes));
      cases.push_back(case_of("norm_gate_up_silu/" + format.name,
                              product(Kind::norm_gate_up_silu, format, kShapes[2], rows), limits.l2_bytes));
    }
  }
  return cases;
}

}  // namespace tramontane::cuda
