// The merging loop of byte-level BPE: of all neighbouring symbols that may be joined, the pair
// with the highest priority is joined first (ties: the leftmost), until none is left. O(n log n) in the
// number of symbols.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace tramontane {

// A stretch of the text being encoded. Symbols are linked, so that a merge is O(1); a merged-away symbol has
// length 0.
struct MergeSymbol {
  uint32_t begin = 0, length = 0;  // bytes of the text
  int32_t id = -1;                 // the token it is so far; -1: none
  int32_t previous = -1, next = -1;
};

struct MergeResult {
  float priority;
  int32_t id;
};

// Reusable memory of the loop: encoding many words allocates once.
class Merger {
 public:
  std::vector<MergeSymbol> symbols;  // in text order; the links are set by run()

  // `lookup(left, right)`: what the two neighbours make, or nothing. Afterwards the symbols with length > 0
  // are the result.
  template <class Lookup>
  void run(const Lookup& lookup) {
    agenda_.clear();
    const auto count = static_cast<int32_t>(symbols.size());
    for (int32_t i = 0; i < count; ++i) {
      symbols[i].previous = i - 1;
      symbols[i].next = i + 1 < count ? i + 1 : -1;
    }
    for (int32_t i = 1; i < count; ++i) propose(i - 1, i, lookup);
    while (!agenda_.empty()) {
      std::pop_heap(agenda_.begin(), agenda_.end());
      const Candidate best = agenda_.back();
      agenda_.pop_back();
      if (!is_current(best)) continue;
      join(best);
      propose(symbols[best.left].previous, best.left, lookup);
      propose(best.left, symbols[best.left].next, lookup);
    }
  }

 private:
  struct Candidate {
    float priority;
    int32_t left, right, id;
    uint32_t length;                                // of both together: tells a stale entry
    bool operator<(const Candidate& other) const {  // for a heap with the best on top
      return priority != other.priority ? priority < other.priority : left > other.left;
    }
  };

  template <class Lookup>
  void propose(int32_t left, int32_t right, const Lookup& lookup) {
    if (left < 0 || right < 0) return;
    const std::optional<MergeResult> result = lookup(symbols[left], symbols[right]);
    if (!result) return;
    agenda_.push_back(
        {result->priority, left, right, result->id, symbols[left].length + symbols[right].length});
    std::push_heap(agenda_.begin(), agenda_.end());
  }

  bool is_current(const Candidate& candidate) const {
    const MergeSymbol &left = symbols[candidate.left], &right = symbols[candidate.right];
    return left.length != 0 && right.length != 0 && left.length + right.length == candidate.length;
  }

  void join(const Candidate& candidate) {
    MergeSymbol &left = symbols[candidate.left], &right = symbols[candidate.right];
    left.length += right.length;
    left.id = candidate.id;
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = candidate.left;
    right.length = 0;
  }

  std::vector<Candidate> agenda_;
};

}  // namespace tramontane
