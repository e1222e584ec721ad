#include "engine/model/mistral.h"

#include <cmath>
#include <cstring>
#include <map>
#include <string>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

bool same_layout(const HostMatrix& a, const HostMatrix& b) {
  return a.k == b.k && a.quant == b.quant &&
         (a.quant ? a.scale_dtype == b.scale_dtype : a.dense_dtype == b.dense_dtype);
}

// Canonical rows are whole and in order, so stacking along the outputs is appending bytes.
HostMatrix concatenate(std::span<const HostMatrix> parts) {
  HostMatrix whole = parts.front();
  if (parts.size() == 1) return whole;
  size_t codes = 0, scales = 0, biases = 0;
  whole.n = 0;
  for (const HostMatrix& part : parts) {
    whole.n += part.n;
    codes += part.codes.size();
    scales += part.scales.size();
    biases += part.biases.size();
  }
  auto bytes = std::make_shared<std::vector<std::byte>>(codes + scales + biases);
  std::byte* out = bytes->data();
  const auto gather = [&](std::span<const std::byte> HostMatrix::*member, size_t size) {
    const std::span<const std::byte> result(out, size);
    for (const HostMatrix& part : parts) {
      if (!(part.*member).empty()) std::memcpy(out, (part.*member).data(), (part.*member).size());
      out += (part.*member).size();
    }
    return result;
  };
  whole.codes = gather(&HostMatrix::codes, codes);
  whole.scales = gather(&HostMatrix::scales, scales);
  whole.biases = gather(&HostMatrix::biases, biases);
  whole.owner = std::move(bytes);
  return whole;
}

uint64_t host_bytes(const HostMatrix& matrix) {
  return matrix.codes.size() + matrix.scales.size() + matrix.biases.size();
}

// Uploads one tensor after the other, freeing each host copy before the next, and tells how far it is.
class Loader {
 public:
  Loader(Backend& backend, const Checkpoint& checkpoint,
         const std::function<void(uint64_t, uint64_t)>& progress)
      : backend_(backend), checkpoint_(checkpoint), progress_(progress), total_(checkpoint.weight_bytes()) {}

  Matrix matrix(Role role, int32_t layer) {
    const HostMatrix host = checkpoint_.matrix(role, layer);
    Matrix result = backend_.upload_matrix(host, role_name(role, layer));
    account(host_bytes(host));
    return result;
  }

  StackedMatrix stacked(std::initializer_list<Role> roles, int32_t layer) {
    StackedMatrix result;
    std::vector<HostMatrix> run;
    std::string label;
    const auto flush = [&] {
      if (run.empty()) return;
      const HostMatrix whole = concatenate(run);
      run.clear();
      result.push_back(backend_.upload_matrix(whole, label));
      account(host_bytes(whole));
      label.clear();
    };
    for (const Role role : roles) {
      HostMatrix next = checkpoint_.matrix(role, layer);
      if (!run.empty() && !same_layout(run.front(), next)) flush();
      label += (label.empty() ? "" : "+") + role_name(role, layer);
      run.push_back(std::move(next));
    }
    flush();
    return result;
  }

  Buffer vector(Role role, int32_t layer) {
    const std::vector<float> host = checkpoint_.vector(role, layer);
    Buffer result = backend_.allocate(host.size() * sizeof(float), role_name(role, layer));
    backend_.upload(result.data(), std::as_bytes(std::span(host)));
    account(host.size() * sizeof(float));
    return result;
  }

 private:
  // Norms may be stored in 16 bits: the sum can pass the bytes on disk by a little.
  void account(uint64_t bytes) {
    done_ = std::min(done_ + bytes, total_);
    if (progress_) progress_(done_, total_);
  }

  Backend& backend_;
  const Checkpoint& checkpoint_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  uint64_t done_ = 0, total_;
};

// (cos, sin) of position * theta^(-2j/head_dim), computed in FP32 as the model's authors and transformers do
// (FORMATS 1a).
std::vector<float> rope_table(const ModelConfig& config, int32_t max_position) {
  const int32_t pairs = config.head_dim / 2;
  std::vector<float> inverse_frequency(static_cast<size_t>(pairs));
  for (int32_t j = 0; j < pairs; ++j) {
    inverse_frequency[j] =
        1.0f / std::pow(config.rope_theta, static_cast<float>(2 * j) / static_cast<float>(config.head_dim));
  }
  std::vector<float> table;
  table.reserve(static_cast<size_t>(max_position) * config.head_dim);
  for (int32_t position = 0; position < max_position; ++position) {
    for (int32_t j = 0; j < pairs; ++j) {
      const float angle = static_cast<float>(position) * inverse_frequency[j];
      table.push_back(std::cos(angle));
      table.push_back(std::sin(angle));
    }
  }
  return table;
}

AttentionShape attention_shape_of(const ModelConfig& config) {
  return {config.n_heads, config.n_kv_heads, config.head_dim, config.sliding_window.value_or(0)};
}

// Bytes a row of scratch takes, by kind of row.
uint64_t token_row_bytes(const ModelConfig& c, DType act) {
  const uint64_t f32 = size_of(DType::f32), in = size_of(act);
  const AttentionShape shape = attention_shape_of(c);
  return 2 * f32 * c.dim + in * c.dim + f32 * shape.qkv_cols() + in * shape.q_cols() +
         2 * f32 * c.hidden_dim + in * c.hidden_dim;
}
uint64_t logit_row_bytes(const ModelConfig& c, DType act) {
  return uint64_t{2} * size_of(DType::f32) * c.dim + size_of(act) * c.dim +
         uint64_t{size_of(DType::f32)} * c.vocab_size;
}

}  // namespace

uint64_t Mistral::workspace_bytes(const ModelConfig& config, const BatchLimits& limits, int32_t max_position,
                                  DType act_dtype) {
  return token_row_bytes(config, act_dtype) * limits.max_tokens +
         logit_row_bytes(config, act_dtype) * limits.max_logits +
         uint64_t{sizeof(float)} * config.head_dim * max_position;
}

uint64_t Mistral::weight_bytes(const Backend& backend, const Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config();
  // Formats are the same from layer to layer but for a few: each is looked at once, since some are converted
  // when they are read.
  std::map<std::string, uint64_t> known;
  uint64_t sum = uint64_t{sizeof(float)} * c.dim * (2 * uint64_t(c.n_layers) + 1);
  std::map<std::string, std::string> formats;  // by role
  for (const TensorInfo& tensor : checkpoint.tensors()) formats[tensor.role] = tensor.format;
  const auto add = [&](Role role, int32_t layer) {
    const auto [found, is_new] =
        known.try_emplace(role_name(role, 0) + " " + formats[role_name(role, layer)], uint64_t{0});
    if (is_new) found->second = backend.matrix_bytes(checkpoint.matrix(role, layer));
    sum += found->second;
  };
  add(Role::tok_embeddings, 0);
  if (checkpoint.has_output()) add(Role::output, 0);
  for (int32_t i = 0; i < c.n_layers; ++i) {
    for (const Role role : {Role::wq, Role::wk, Role::wv, Role::wo, Role::w1, Role::w3, Role::w2})
      add(role, i);
  }
  return sum;
}

Mistral::Mistral(Backend& backend, const Checkpoint& checkpoint, const BatchLimits& limits,
                 int32_t max_position, const std::function<void(uint64_t done, uint64_t total)>& progress)
    : backend_(backend),
      config_(checkpoint.config()),
      shape_(attention_shape_of(config_)),
      tied_(!checkpoint.has_output()),
      limits_(limits) {
  Loader load(backend, checkpoint, progress);
  tok_embeddings_ = load.matrix(Role::tok_embeddings, 0);
  for (int32_t i = 0; i < config_.n_layers; ++i) {
    layers_.push_back({.attention_norm = load.vector(Role::attention_norm, i),
                       .ffn_norm = load.vector(Role::ffn_norm, i),
                       .wqkv = load.stacked({Role::wq, Role::wk, Role::wv}, i),
                       .wo = load.matrix(Role::wo, i),
                       .w13 = load.stacked({Role::w1, Role::w3}, i),
                       .w2 = load.matrix(Role::w2, i)});
  }
  norm_ = load.vector(Role::norm, 0);
  if (!tied_) output_ = load.matrix(Role::output, 0);

  const std::vector<float> rope = rope_table(config_, max_position);
  rope_ = backend.allocate(rope.size() * sizeof(float), "RoPE table");
  backend.upload(rope_.data(), std::as_bytes(std::span(rope)));

  const size_t f32 = sizeof(float), in = size_of(backend.act_dtype());
  const auto rows = static_cast<size_t>(limits.max_tokens), sampled = static_cast<size_t>(limits.max_logits);
  const auto dim = static_cast<size_t>(config_.dim), hidden = static_cast<size_t>(config_.hidden_dim);
  x_ = backend.allocate(rows * dim * f32, "workspace x");
  delta_ = backend.allocate(rows * dim * f32, "workspace delta");
  h_ = backend.allocate(rows * dim * in, "workspace h");
  qkv_ = backend.allocate(rows * static_cast<size_t>(shape_.qkv_cols()) * f32, "workspace qkv");
  attention_ = backend.allocate(rows * static_cast<size_t>(shape_.q_cols()) * in, "workspace attention");
  gate_up_ = backend.allocate(rows * 2 * hidden * f32, "workspace gate_up");
  activation_ = backend.allocate(rows * hidden * in, "workspace activation");
  sampled_x_ = backend.allocate(sampled * dim * f32, "workspace sampled x");
  sampled_delta_ = backend.allocate(sampled * dim * f32, "workspace sampled delta");
  sampled_h_ = backend.allocate(sampled * dim * in, "workspace sampled h");
  logits_ = backend.allocate(sampled * static_cast<size_t>(config_.vocab_size) * f32, "workspace logits");
  backend.reserve(
      {.max_tokens = limits.max_tokens, .max_sequences = limits.max_sequences, .max_kv = max_position},
      shape_);
}

TensorView Mistral::forward(const BatchView& batch, KvCache& cache) {
  CHECK_LE(batch.n_tokens, limits_.max_tokens);
  CHECK_LE(batch.n_logits, limits_.max_logits);
  const ModelConfig& c = config_;
  const DType act = backend_.act_dtype();
  const int64_t rows = batch.n_tokens;
  const TensorView x = x_.view(DType::f32, rows, c.dim);            // the residual stream
  const TensorView scratch = delta_.view(DType::f32, rows, c.dim);  // where what is added to it may wait
  const TensorView h = h_.view(act, rows, c.dim);
  const TensorView qkv = qkv_.view(DType::f32, rows, shape_.qkv_cols());
  const TensorView attention = attention_.view(act, rows, shape_.q_cols());
  const TensorView gate_up = gate_up_.view(DType::f32, rows, int64_t{2} * c.hidden_dim);
  const TensorView activation = activation_.view(act, rows, c.hidden_dim);
  const TensorView rope =
      rope_.view(DType::f32, static_cast<int64_t>(rope_.size() / sizeof(float)) / c.head_dim, c.head_dim);
  const auto weight = [&](const Buffer& norm) { return norm.view(DType::f32, 1, c.dim); };

  backend_.begin_step(batch);
  backend_.embed(batch.tokens, tok_embeddings_, x);
  TensorView delta;  // what x still lacks
  for (int32_t i = 0; i < c.n_layers; ++i) {
    const MistralLayer& layer = layers_[i];
    const KvLayer kv = cache.layer(i);
    backend_.norm_qkv_rope(x, delta, weight(layer.attention_norm), c.norm_eps, h, layer.wqkv, qkv, batch,
                           shape_, rope, kv);
    backend_.attention(qkv, batch, shape_, kv, attention);
    delta = backend_.linear_add(attention, layer.wo, x, scratch);
    backend_.norm_gate_up_silu(x, delta, weight(layer.ffn_norm), c.norm_eps, h, layer.w13, gate_up,
                               activation);
    delta = backend_.linear_add(activation, layer.w2, x, scratch);
  }
  const TensorView result = logits(batch, x, delta);
  backend_.end_step();
  return result;
}

// The output matrix, for the rows that are wanted alone.
TensorView Mistral::logits(const BatchView& batch, TensorView x, TensorView delta) {
  const TensorView result = logits_.view(DType::f32, batch.n_logits, config_.vocab_size);
  if (batch.n_logits == 0) return result;
  const TensorView sampled_x = sampled_x_.view(DType::f32, batch.n_logits, config_.dim);
  const TensorView sampled_h = sampled_h_.view(backend_.act_dtype(), batch.n_logits, config_.dim);
  TensorView sampled_delta;
  backend_.gather_rows(x, batch.logit_rows, sampled_x);
  if (!delta.empty()) {
    sampled_delta = sampled_delta_.view(DType::f32, batch.n_logits, config_.dim);
    backend_.gather_rows(delta, batch.logit_rows, sampled_delta);
  }
  const TensorView norm = norm_.view(DType::f32, 1, config_.dim);
  backend_.add_rmsnorm(sampled_x, sampled_delta, norm, config_.norm_eps, sampled_h);
  backend_.linear(sampled_h, tied_ ? tok_embeddings_ : output_, result);
  return result;
}

}  // namespace tramontane
