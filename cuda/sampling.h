// Sampling where the logits are: the definition of engine/sampler.h, bit for bit, so that a request gets the
// same ids from either. All parameters are read from device memory; nothing depends on the order of threads,
// because weights are integers and their sums exact.
#pragma once

#include <cstdint>

#include "cuda/launch.h"
#include "engine/backend/sampling.h"

namespace tramontane::cuda {

void load_sampling_kernels();  // brings their code to the device (kernel_setup.h)

// ids[i] = the token drawn for rows[i], -1 when a logit is not finite or every id is masked; counts of the
// rows that have some include it. `logits` [any, vocab] f32 are scratch afterwards.
void launch_sample(Stream stream, TensorView logits, const SamplingView& view);

// counts[vocab] (i32) of a sequence whose tokens (i32 [n]) are a prompt of n_prompt and output.
void launch_count_tokens(Stream stream, TensorView tokens, int32_t n_prompt, TensorView counts);

// tokens[t] = ids[sources[t]] where sources[t] >= 0: what the step before drew becomes this step's input.
void launch_take_tokens(Stream stream, TensorView ids, TensorView sources, TensorView tokens);

}  // namespace tramontane::cuda
