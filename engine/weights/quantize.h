// Writes a checkpoint in another format: what `tramontane quantize` does. The result is what bitsandbytes
// (through transformers) or mlx_lm.convert write from the same input, bit for bit in every tensor; see
// quantize_rules.h for how codes are chosen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace tramontane {

// fp4, nf4: bitsandbytes, blocks of 64, the projections alone. q8 to q3: MLX affine, every matrix whose rows
// the group divides, embeddings included. bf16: a plain Hugging Face directory.
enum class QuantizeTarget { bf16, fp4, nf4, q8, q6, q4, q3 };
// Throws std::runtime_error naming the choices.
QuantizeTarget parse_quantize_target(const std::string& name);

struct QuantizeOptions {
  std::filesystem::path model;  // a directory with F32, F16 or BF16 weights, or a .gguf file
  std::filesystem::path out;    // a folder that does not exist yet
  QuantizeTarget to = QuantizeTarget::q4;
  int group = 64;            // MLX: 32, 64 or 128; bitsandbytes: 64
  int threads = 0;           // 0: one per core
  uint64_t shard_bytes = 0;  // most bytes of tensors in one file; 0: 5 GB as the libraries do
};

struct QuantizeReport {
  uint64_t bytes_read = 0, bytes_written = 0;  // of tensors
  int quantized = 0;                           // matrices
  std::vector<std::string> left_dense;         // matrices that MLX would quantise but for the group size
};

// Tensors' bytes done so far, of all. Called from the calling thread between pieces of work; may throw to
// give up, which removes what was written.
using QuantizeProgress = std::function<void(uint64_t done, uint64_t total)>;

// Memory: the largest tensor's result, and the pages of its source. A GGUF source is dequantised and rounded
// to BF16 first, its q and k rows brought to Hugging Face's order; a source in Mistral's own layout likewise.
// Throws std::runtime_error with one line for a source that is quantised already, weights that are not
// finite, a group size that does not fit, an existing `out`, a full disk.
QuantizeReport quantize_checkpoint(const QuantizeOptions& options, const QuantizeProgress& progress);

}  // namespace tramontane
