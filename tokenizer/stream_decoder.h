// StreamDecoder: one answer's ids to text deltas; UTF-8 is never split, stop strings never leak a prefix, and only the shortest suffix
// that may still become a stop string is held back. One per sequence, one HTTP thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace tramontane {

class StreamDecoder {
 public:
  // `stops`: non-empty strings. The tokenizer must outlive the decoder.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stops);

  // The text that this id makes certain (often empty). After stopped() is true, nothing more.
  std::string append(int32_t id);
  // What was held back, once the sequence is over. Empty when a stop string ended it.
  std::string finish();
  // A stop string was found; the text before the earliest one has been given out.
  bool stopped() const { return stopped_; }

 private:
  std::string release(bool final);

  std::unique_ptr<IncrementalDecoder> decoder_;
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tramontane
