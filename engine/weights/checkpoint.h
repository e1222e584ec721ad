// Checkpoint: opens a model on disk in any supported layout and names its tensors by role. The only place that knows file names and layouts.
// Formats: engine/weights/FORMATS.md. Read by mmap; not thread-safe while loading, immutable afterwards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "config/model_config.h"
#include "engine/backend/matrix.h"

namespace tramontane {

// Names the parts of the model (the model authors' names). `layer` is ignored for the three that are not per layer.
enum class Role { tok_embeddings, norm, output, attention_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3 };
std::string role_name(Role role, int32_t layer);   // "layers.3.wq"

// Where the checkpoint's tokenizer is: a SentencePiece file beside the weights, or GGUF metadata. Reading it is tokenizer/'s business.
struct TokenizerSource {
  std::filesystem::path sentencepiece_file;   // empty: none found
  std::shared_ptr<const nlohmann::json> gguf_metadata;  // "tokenizer.ggml.*" keys, arrays included; null: not a GGUF
};

// A line of `tramontane inspect`.
struct TensorInfo {
  std::string name;      // as in the file
  std::string role;      // "layers.3.wq"; empty for companions (scales, absmax)
  std::string format;    // "BF16", "MLX affine 4-bit g64", "bitsandbytes FP4", "GGUF Q4_1"
  std::vector<int64_t> shape;   // logical [rows, cols] or [cols]
  std::string file;
  uint64_t bytes = 0;    // on disk, companions included
};

class Checkpoint {
 public:
  // `path`: a directory (Hugging Face, MLX, bitsandbytes) or a .gguf file. Throws std::runtime_error with one line naming file and fault:
  // unreadable, truncated, overlapping, missing, unused or misshapen tensors; unknown architecture or format.
  static std::unique_ptr<Checkpoint> open(const std::filesystem::path& path);
  virtual ~Checkpoint() = default;

  const ModelConfig& config() const { return config_; }
  const GenerationDefaults& generation_defaults() const { return generation_defaults_; }
  const TokenizerSource& tokenizer() const { return tokenizer_; }
  // "Hugging Face BF16", "MLX affine 4-bit g64", "bitsandbytes FP4", "GGUF Q4_1": the format most weights have.
  const std::string& format() const { return format_; }
  // Bytes of all tensors on disk.
  uint64_t weight_bytes() const { return weight_bytes_; }

  bool has_output() const { return has_output_; }   // false: tied to tok_embeddings
  // A weight matrix in canonical form, q and k rows already permuted to interleaved RoPE pairs (2j, 2j+1).
  // tok_embeddings, output: [vocab_size, dim]; wq [n_heads*head_dim, dim]; wk, wv; wo [dim, n_heads*head_dim]; w1, w3 [hidden_dim, dim]; w2 [dim, hidden_dim].
  virtual HostMatrix matrix(Role role, int32_t layer) const = 0;
  // A norm weight as FP32 [dim].
  virtual std::vector<float> vector(Role role, int32_t layer) const = 0;

  // Hands back the memory of file pages that have been read: for who goes through tensors one by one.
  virtual void release_pages() const = 0;

  virtual std::vector<TensorInfo> tensors() const = 0;
  // The tensor with this file name as FP32 in the file's own row order (no RoPE permutation): `inspect --dequantize`.
  // Returns rows*cols values; throws std::runtime_error for an unknown name.
  struct Dequantized { std::vector<int64_t> shape; std::vector<float> values; };
  virtual Dequantized dequantize(const std::string& name) const = 0;

 protected:
  ModelConfig config_;
  GenerationDefaults generation_defaults_;
  TokenizerSource tokenizer_;
  std::string format_;
  uint64_t weight_bytes_ = 0;
  bool has_output_ = false;
};

}  // namespace tramontane
