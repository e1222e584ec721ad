// LoadDisplay: how far loading is, on standard error: one moving line on a terminal, a plain line every few
// seconds elsewhere. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace tramontane {

class LoadDisplay {
 public:
  // `doing`, `did`: the verb, as in "loading weights", "loaded 98 MB of weights".
  explicit LoadDisplay(std::string doing = "loading", std::string did = "loaded");
  // Bytes of weights loaded so far.
  void update(uint64_t done, uint64_t total);
  // The closing line: "loaded 98 MB in 0.4 s".
  void finish(uint64_t total);

 private:
  double seconds() const;

  std::string doing_, did_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  double shown_at_ = 0;  // seconds after start_
};

// "98.4 MB", "14.5 GB": decimal units, as disks and downloads are measured.
std::string format_bytes(uint64_t bytes);

}  // namespace tramontane
