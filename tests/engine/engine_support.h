// What the engine's tests share: the small golden model on a CPU backend, requests in one line, and answers
// collected to the end.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "engine/weights/checkpoint.h"

namespace tramontane {

// tiny-v0.3-bf16 (in every clone), opened once.
const Checkpoint& tiny_checkpoint();

struct TokenRecord {
  int32_t token = -1;
  float logprob = 0.0f;
  std::vector<std::pair<int32_t, float>> top;
  bool operator==(const TokenRecord&) const = default;
};

struct AnswerRecord {
  std::vector<TokenRecord> prompt, tokens;
  FinishReason finish = FinishReason::none;
  int finishing_events = 0;
  bool operator==(const AnswerRecord&) const = default;
  std::vector<int32_t> ids() const;
};

// Pops every event until each of the n sequences has finished; fails the test when none comes for a minute.
std::vector<AnswerRecord> collect(Generation& generation, int32_t n = 1);

// `length` ids of a made-up but reproducible prompt; the same `seed` gives prompts that are prefixes of each
// other.
std::vector<int32_t> make_prompt(uint64_t seed, int32_t length, int32_t vocab_size);

GenerateRequest make_request(std::vector<int32_t> prompt, int32_t max_tokens);

}  // namespace tramontane
