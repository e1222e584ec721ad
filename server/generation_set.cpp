#include "server/generation_set.h"

#include <algorithm>
#include <numeric>

namespace tramontane {

using std::chrono::milliseconds;

GenerationSet::GenerationSet(Engine& engine, std::vector<GenerateRequest> requests) {
  try {
    for (GenerateRequest& request : requests) {
      unfinished_.push_back(request.n);
      generations_.push_back(engine.submit(std::move(request)));
    }
  } catch (...) {
    for (const auto& generation : generations_) generation->cancelled = true;
    throw;
  }
  open_.resize(generations_.size());
  std::iota(open_.begin(), open_.end(), size_t{0});
}

GenerationSet::GenerationSet(std::vector<std::shared_ptr<Generation>> generations, int32_t n)
    : generations_(std::move(generations)), unfinished_(generations_.size(), n), open_(generations_.size()) {
  std::iota(open_.begin(), open_.end(), size_t{0});
}

GenerationSet::~GenerationSet() {
  for (const size_t prompt : open_) generations_[prompt]->cancelled = true;
}

std::optional<GenerationSet::Event> GenerationSet::next(milliseconds timeout) {
  // With several, a thread can sleep on one only: it looks at all, then naps on one so shortly that no other
  // waits noticeably.
  constexpr milliseconds kNap{2};
  const auto until = std::chrono::steady_clock::now() + timeout;
  do {
    for (size_t i = 0; i < open_.size(); ++i) {
      turn_ = (turn_ + 1) % open_.size();
      const size_t prompt = open_[turn_];
      const bool last = i + 1 == open_.size();
      const milliseconds wait = !last               ? milliseconds(0)
                                : open_.size() == 1 ? timeout
                                                    : std::min(kNap, timeout);
      if (const auto event = generations_[prompt]->events.pop_for(wait)) {
        const Event found{prompt, *event};
        count(found);
        return found;
      }
    }
  } while (std::chrono::steady_clock::now() < until);
  return std::nullopt;
}

void GenerationSet::count(const Event& event) {
  if (event.event.kind != TokenEvent::Kind::finished) return;
  if (--unfinished_[event.prompt] == 0) std::erase(open_, event.prompt);
}

void GenerationSet::cancel_sequence(size_t prompt, int32_t index) {
  generations_[prompt]->sequence_cancelled[static_cast<size_t>(index)] = true;
}

RequestTimings GenerationSet::timings() const {
  RequestTimings all;
  for (const auto& generation : generations_) {
    const RequestTimings& one = generation->timings;
    all.queue_s = std::max(all.queue_s, one.queue_s);
    all.prefill_s = std::max(all.prefill_s, one.prefill_s);
    all.decode_s = std::max(all.decode_s, one.decode_s);
    all.cached_tokens += one.cached_tokens;
  }
  return all;
}

}  // namespace tramontane
