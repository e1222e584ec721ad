#include "engine/active_request.h"

#include <algorithm>
#include <utility>

#include "engine/block_manager.h"

namespace tramontane {
namespace {

// Room for every event and every alternative that the request can yield: events point into top_storage.
std::shared_ptr<Generation> make_generation(const GenerateRequest& request) {
  const SamplingParams& sampling = request.sampling;
  const size_t n = static_cast<size_t>(request.n), most = static_cast<size_t>(sampling.max_tokens),
               scored = sampling.prompt_logprobs >= 0 ? request.prompt.size() : 0;
  auto generation = std::make_shared<Generation>(request.n);
  generation->events.reserve(scored + n * (most + 1));
  generation->top_storage.reserve(scored * static_cast<size_t>(std::max(sampling.prompt_logprobs, 0)) +
                                  n * most * static_cast<size_t>(std::max(sampling.logprobs, 0)));
  return generation;
}

std::vector<int32_t> end_ids_of(const SamplingParams& sampling, const ModelConfig& config) {
  std::vector<int32_t> ids;
  if (!sampling.ignore_eos) ids = config.eos_ids;
  std::erase_if(ids, [&](int32_t id) { return id < 0 || id >= config.vocab_size; });
  ids.insert(ids.end(), sampling.stop_token_ids.begin(), sampling.stop_token_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

// By id; biases of one id are added up.
void normalise(std::vector<std::pair<int32_t, float>>& biases) {
  std::stable_sort(biases.begin(), biases.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  size_t n = 0;
  for (const auto& [id, bias] : biases) {
    if (n > 0 && biases[n - 1].first == id) {
      biases[n - 1].second += bias;
    } else {
      biases[n++] = {id, bias};
    }
  }
  biases.resize(n);
}

void fill_answer(ActiveSequence& answer, ActiveRequest& owner, int32_t index) {
  const GenerateRequest& request = owner.request;
  const size_t length = request.prompt.size() + static_cast<size_t>(request.sampling.max_tokens);
  answer.owner = &owner;
  answer.index = index;
  answer.priority = request.priority;
  answer.n_prompt = static_cast<int32_t>(request.prompt.size());
  answer.max_tokens = request.sampling.max_tokens;
  answer.scores_prompt = request.sampling.prompt_logprobs >= 0 && index == 0;
  answer.group = request.n > 1 ? &owner.group : nullptr;
  answer.tokens.reserve(length);
  answer.tokens = request.prompt;
  answer.blocks.reserve(static_cast<size_t>(BlockManager::blocks_for(static_cast<int32_t>(length))));
}

}  // namespace

std::unique_ptr<ActiveRequest> make_active_request(GenerateRequest request, const ModelConfig& config) {
  auto active = std::make_unique<ActiveRequest>();
  active->request = std::move(request);
  normalise(active->request.sampling.logit_bias);
  active->generation = make_generation(active->request);
  active->end_ids = end_ids_of(active->request.sampling, config);
  active->answers.resize(static_cast<size_t>(active->request.n));
  for (size_t i = 0; i < active->answers.size(); ++i)
    fill_answer(active->answers[i], *active, static_cast<int32_t>(i));
  active->n_unfinished = active->request.n;
  active->submitted_at = std::chrono::steady_clock::now();
  return active;
}

}  // namespace tramontane
