#include "engine/backend/backend_checks.h"

#include "engine/backend/check.h"

namespace tramontane {
namespace {

std::string quote(std::string_view op, std::string_view left, int64_t a, std::string_view right, int64_t b) {
  return std::string(op) + ": " + std::string(left) + " is " + std::to_string(a) + ", " + std::string(right) +
         " is " + std::to_string(b);
}

// One op's checks; `op` leads every message.
class Checker {
 public:
  explicit Checker(std::string_view op) : op_(op) {}

  void equal(std::string_view left, int64_t a, std::string_view right, int64_t b) const {
    CHECK(a == b, quote(op_, left, a, right, b));
  }

  void at_most(std::string_view left, int64_t a, std::string_view right, int64_t b) const {
    CHECK(a <= b, quote(op_, left, a, right, b));
  }

  // Has memory, the dtype wanted, and rows that do not overlap.
  void tensor(std::string_view name, TensorView view, DType dtype) const {
    CHECK(!view.empty(), op_ + ": " + std::string(name) + " has no memory");
    CHECK(view.dtype == dtype, op_ + ": " + std::string(name) + " is " + std::string(name_of(view.dtype)) +
                                   ", must be " + std::string(name_of(dtype)));
    // Spelled out: at_most would be given a string that is built on every step.
    CHECK(view.cols <= view.row_stride,
          quote(op_, "width of " + std::string(name), view.cols, "its row stride", view.row_stride));
  }

  void matrix(const Matrix& w) const { CHECK(w.codes.data() != nullptr, op_ + ": w was not uploaded"); }

  void heads(const AttentionShape& shape) const {
    const bool sound = shape.n_heads > 0 && shape.n_kv_heads > 0 && shape.n_heads % shape.n_kv_heads == 0;
    CHECK(sound, quote(op_, "number of heads", shape.n_heads, "number of kv heads", shape.n_kv_heads));
    CHECK(shape.head_dim > 0 && shape.head_dim % 2 == 0,
          op_ + ": head_dim is " + std::to_string(shape.head_dim));
  }

  void paged(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv) const {
    heads(shape);
    tensor("qkv", qkv, DType::f32);
    equal("rows of qkv", qkv.rows, "tokens of the batch", batch.n_tokens);
    equal("width of qkv", qkv.cols, "(heads + 2 * kv heads) * head_dim", shape.qkv_cols());
    CHECK(kv.data != nullptr && kv.n_blocks > 0, op_ + ": the kv layer has no blocks");
    tensor("positions", batch.positions, DType::i32);
    at_most("tokens of the batch", batch.n_tokens, "number of positions",
            batch.positions.cols * batch.positions.rows);
  }

 private:
  std::string op_;
};

}  // namespace

void check_embed(TensorView tokens, const Matrix& table, TensorView x) {
  const Checker check("embed");
  check.tensor("tokens", tokens, DType::i32);
  check.tensor("x", x, DType::f32);
  check.matrix(table);
  check.at_most("rows of x", x.rows, "number of tokens", tokens.rows * tokens.cols);
  check.equal("width of x", x.cols, "K of the table", table.k);
}

void check_linear(TensorView x, const Matrix& w, TensorView y, DType act_dtype) {
  const Checker check("linear");
  check.tensor("x", x, act_dtype);
  check.tensor("y", y, DType::f32);
  check.matrix(w);
  check.equal("K of x", x.cols, "K of w", w.k);
  check.equal("width of y", y.cols, "N of w", w.n);
  check.equal("rows of x", x.rows, "rows of y", y.rows);
}

void check_add_rmsnorm(TensorView x, TensorView delta, TensorView w, TensorView y, DType act_dtype) {
  const Checker check("add_rmsnorm");
  check.tensor("x", x, DType::f32);
  check.tensor("w", w, DType::f32);
  check.tensor("y", y, act_dtype);
  check.equal("width of x", x.cols, "size of w", w.cols);
  check.equal("width of x", x.cols, "width of y", y.cols);
  check.equal("rows of x", x.rows, "rows of y", y.rows);
  if (delta.empty()) return;
  check.tensor("delta", delta, DType::f32);
  check.equal("width of x", x.cols, "width of delta", delta.cols);
  check.equal("rows of x", x.rows, "rows of delta", delta.rows);
}

void check_rope_store_kv(TensorView qkv, const BatchView& batch, const AttentionShape& shape, TensorView rope,
                         KvLayer kv) {
  const Checker check("rope_store_kv");
  check.paged(qkv, batch, shape, kv);
  check.tensor("slots", batch.slots, DType::i32);
  check.at_most("tokens of the batch", batch.n_tokens, "number of slots",
                batch.slots.cols * batch.slots.rows);
  check.tensor("rope", rope, DType::f32);
  check.equal("width of rope", rope.cols, "head_dim", shape.head_dim);
  check.at_most("longest sequence", batch.max_kv, "rows of rope", rope.rows);
}

void check_attention(TensorView qkv, const BatchView& batch, const AttentionShape& shape, KvLayer kv,
                     TensorView out, DType act_dtype) {
  const Checker check("attention");
  check.paged(qkv, batch, shape, kv);
  check.tensor("out", out, act_dtype);
  check.equal("rows of out", out.rows, "tokens of the batch", batch.n_tokens);
  check.equal("width of out", out.cols, "heads * head_dim", shape.q_cols());
  check.tensor("q_starts", batch.q_starts, DType::i32);
  check.tensor("kv_lens", batch.kv_lens, DType::i32);
  check.tensor("block_table", batch.block_table, DType::i32);
  check.at_most("sequences of the batch", batch.n_seqs, "rows of the block table", batch.block_table.rows);
  check.at_most("longest sequence", batch.max_kv, "tokens a block table row can name",
                batch.block_table.cols * kBlockTokens);
}

void check_silu_mul(TensorView gate_up, TensorView y, DType act_dtype) {
  const Checker check("silu_mul");
  check.tensor("gate_up", gate_up, DType::f32);
  check.tensor("y", y, act_dtype);
  check.equal("width of gate_up", gate_up.cols, "twice the width of y", 2 * y.cols);
  check.equal("rows of gate_up", gate_up.rows, "rows of y", y.rows);
}

void check_gather_rows(TensorView x, TensorView rows, TensorView y) {
  const Checker check("gather_rows");
  check.tensor("x", x, DType::f32);
  check.tensor("rows", rows, DType::i32);
  check.tensor("y", y, DType::f32);
  check.equal("width of x", x.cols, "width of y", y.cols);
  check.at_most("rows of y", y.rows, "number of rows", rows.rows * rows.cols);
}

}  // namespace tramontane
