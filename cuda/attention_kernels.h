// The two attention kernels, each in a file of its own. attention.cu plans, checks and chooses.
#pragma once

#include "cuda/attention_plan.h"

namespace tramontane::cuda {

struct AttentionArguments;  // attention_tile.cuh

// Every head_dim that the kernels are compiled for: those of Mistral and Llama models, and of the tiny ones
// that tests use.
#define TRAMONTANE_ATTENTION_HEAD_DIMS(X) X(8) X(16) X(32) X(64) X(80) X(96) X(128) X(256)

template <int kHeadDim>
void load_attention_decode();
template <int kHeadDim>
void load_attention_prefill();
template <int kHeadDim>
void launch_attention_decode(Stream stream, const AttentionArguments& arguments, const AttentionPlan& plan);
template <int kHeadDim>
void launch_attention_prefill(Stream stream, const AttentionArguments& arguments, const AttentionPlan& plan);

}  // namespace tramontane::cuda
