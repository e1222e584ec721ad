// StreamDecoder: one answer's ids to text deltas; UTF-8 is never split, stop strings never leak a prefix, and
// only the shortest suffix that may still become a stop string is held back. One per sequence, one HTTP
// thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tramontane {

// Follows one stop string through a text, byte by byte (Knuth, Morris, Pratt).
class StopMatcher {
 public:
  explicit StopMatcher(std::string stop);  // not empty
  void advance(char byte);
  // The stop string ends at the last byte.
  bool complete() const { return matched_ == stop_.size(); }
  // How many bytes at the end of the text so far are a beginning of the stop string: the longest such.
  size_t matched() const { return matched_; }

 private:
  std::string stop_;
  std::vector<size_t> fallback_;  // [i]: length of the longest proper border of the first i + 1 bytes
  size_t matched_ = 0;
};

// The stop string that ends first decides; of those that end at the same byte, the longest. That does not
// depend on how the text is cut into tokens, so a streamed answer equals the same answer decoded in one
// piece.
class StreamDecoder {
 public:
  // `stops`: empty strings are ignored. The tokenizer must outlive the decoder.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stops);

  // Text that comes before the answer and is not part of it (a completion's prompt): decoded so that the
  // answer's first piece keeps its space. Returned, but neither held back nor searched for stops. Before any
  // append().
  std::string prime(std::span<const int32_t> ids);
  // The text that this id makes certain (often empty). After stopped() is true, nothing more.
  std::string append(int32_t id);
  // What was held back, once the sequence is over. Empty when a stop string ended it.
  std::string finish();
  // A stop string was found; the text before it has been given out.
  bool stopped() const { return stopped_; }

 private:
  std::string release(std::string_view decoded);

  std::unique_ptr<IncrementalDecoder> decoder_;
  std::vector<StopMatcher> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tramontane
