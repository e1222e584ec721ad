#include "tokenizer/stream_decoder.h"

#include <algorithm>

namespace tramontane {

StopMatcher::StopMatcher(std::string stop) : stop_(std::move(stop)), fallback_(stop_.size(), 0) {
  for (size_t i = 1, border = 0; i < stop_.size(); ++i) {
    while (border > 0 && stop_[i] != stop_[border]) border = fallback_[border - 1];
    if (stop_[i] == stop_[border]) ++border;
    fallback_[i] = border;
  }
}

void StopMatcher::advance(char byte) {
  while (matched_ > 0 && (complete() || stop_[matched_] != byte)) matched_ = fallback_[matched_ - 1];
  if (stop_[matched_] == byte) ++matched_;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stops)
    : decoder_(tokenizer.make_decoder()) {
  for (std::string& stop : stops) {
    if (!stop.empty()) stops_.emplace_back(std::move(stop));
  }
}

std::string StreamDecoder::prime(std::span<const int32_t> ids) {
  std::string decoded;
  for (const int32_t id : ids) decoder_->append(id, decoded);
  return decoded;
}

std::string StreamDecoder::append(int32_t id) {
  if (stopped_) return {};
  std::string decoded;
  decoder_->append(id, decoded);
  return release(decoded);
}

std::string StreamDecoder::finish() {
  if (stopped_) return {};
  std::string decoded;
  decoder_->finish(decoded);
  std::string out = release(decoded);
  if (!stopped_) out += held_;
  held_.clear();
  return out;
}

std::string StreamDecoder::release(std::string_view decoded) {
  for (size_t i = 0; i < decoded.size() && !stopped_; ++i) {
    held_ += decoded[i];
    for (StopMatcher& stop : stops_) {
      stop.advance(decoded[i]);
      stopped_ |= stop.complete();
    }
  }
  // The end of the text that is not given out: the stop string once there is one, else the longest beginning
  // of any.
  size_t kept = 0;
  for (const StopMatcher& stop : stops_) {
    if (!stopped_ || stop.complete()) kept = std::max(kept, stop.matched());
  }
  std::string out = held_.substr(0, held_.size() - kept);
  held_.erase(0, out.size());
  return out;
}

}  // namespace tramontane
