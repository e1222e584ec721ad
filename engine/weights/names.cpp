#include "engine/weights/names.h"

namespace tramontane {
namespace {

// One row a role; "@" in front: belongs to a layer.
struct RoleNames {
  Role role;
  const char* ours;
  const char* hugging_face;
  const char* gguf;
  const char* mistral;
};
constexpr RoleNames kNames[] = {
    {Role::tok_embeddings, "tok_embeddings", "model.embed_tokens", "token_embd", "tok_embeddings"},
    {Role::norm, "norm", "model.norm", "output_norm", "norm"},
    {Role::output, "output", "lm_head", "output", "output"},
    {Role::attention_norm, "@attention_norm", "@input_layernorm", "@attn_norm", "@attention_norm"},
    {Role::wq, "@wq", "@self_attn.q_proj", "@attn_q", "@attention.wq"},
    {Role::wk, "@wk", "@self_attn.k_proj", "@attn_k", "@attention.wk"},
    {Role::wv, "@wv", "@self_attn.v_proj", "@attn_v", "@attention.wv"},
    {Role::wo, "@wo", "@self_attn.o_proj", "@attn_output", "@attention.wo"},
    {Role::ffn_norm, "@ffn_norm", "@post_attention_layernorm", "@ffn_norm", "@ffn_norm"},
    {Role::w1, "@w1", "@mlp.gate_proj", "@ffn_gate", "@feed_forward.w1"},
    {Role::w2, "@w2", "@mlp.down_proj", "@ffn_down", "@feed_forward.w2"},
    {Role::w3, "@w3", "@mlp.up_proj", "@ffn_up", "@feed_forward.w3"},
};

const RoleNames& row_of(Role role) {
  for (const RoleNames& row : kNames) {
    if (row.role == role) return row;
  }
  return kNames[0];  // every role is listed
}

std::string expand(const char* name, const char* layers, int32_t layer) {
  if (*name != '@') return name;
  return std::string(layers) + std::to_string(layer) + "." + (name + 1);
}

}  // namespace

std::string role_name(Role role, int32_t layer) {
  return expand(row_of(role).ours, "layers.", layer);
}

std::string tensor_name(Naming naming, Role role, int32_t layer) {
  const RoleNames& row = row_of(role);
  switch (naming) {
    case Naming::hugging_face:
      return expand(row.hugging_face, "model.layers.", layer) + ".weight";
    case Naming::gguf:
      return expand(row.gguf, "blk.", layer) + ".weight";
    case Naming::mistral:
      return expand(row.mistral, "layers.", layer) + ".weight";
  }
  return {};
}

WeightShape expected_shape(Role role, const ModelConfig& c) {
  const int64_t q = int64_t{c.n_heads} * c.head_dim, kv = int64_t{c.n_kv_heads} * c.head_dim;
  switch (role) {
    case Role::tok_embeddings:
    case Role::output:
      return {c.vocab_size, c.dim};
    case Role::norm:
    case Role::attention_norm:
    case Role::ffn_norm:
      return {0, c.dim};
    case Role::wq:
      return {q, c.dim};
    case Role::wk:
    case Role::wv:
      return {kv, c.dim};
    case Role::wo:
      return {c.dim, q};
    case Role::w1:
    case Role::w3:
      return {c.hidden_dim, c.dim};
    case Role::w2:
      return {c.dim, c.hidden_dim};
  }
  return {};
}

bool is_ignorable(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq");
}

}  // namespace tramontane
