// Paged attention (backend.h, attention): decode and prefill rows mixed in one call. A sequence with kv_len 0
// is padding: its rows are written as zeros.
//
// A row's keys are walked in chunks of a fixed length at fixed absolute positions, each chunk from a fresh
// softmax state, and the chunks' partial results are merged in order. Decode gives chunks to blocks, prefill
// walks them in one block: the same sums either way, so the same bits (decision 5).
#pragma once

#include <cstddef>

#include "cuda/launch.h"
#include "engine/backend/backend.h"

namespace tramontane::cuda {

// Scratch that a step of at most max_tokens rows of at most max_sequences sequences of at most max_kv keys
// needs, in bytes; at most 64 MiB and a little. Throws std::runtime_error for a head_dim that cuda/ does not
// have.
size_t attention_workspace_bytes(const AttentionShape& shape, int32_t max_tokens, int32_t max_sequences,
                                 int32_t max_kv);

// Brings the code of the shape's kernels to the device (kernel_setup.h).
void load_attention_kernels(const AttentionShape& shape);

// `workspace`: at least attention_workspace_bytes of the batch's own n_tokens, n_seqs, max_kv; attention's
// own, 16-byte aligned, and zero before the first call (it begins with counters, which every call leaves at
// zero). The grid depends only on n_tokens, n_seqs, max_q and max_kv, which are part of a captured graph's
// key. Rows of qkv must begin at even multiples of 4 bytes, rows of out at multiples of 4.
void launch_attention(Stream stream, TensorView qkv, const BatchView& batch, const AttentionShape& shape,
                      KvLayer kv, TensorView out, std::byte* workspace);

}  // namespace tramontane::cuda
