#include "server/cli/load_display.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace tramontane {
namespace {

constexpr double kTerminalInterval = 0.1;  // seconds: smooth enough to the eye
constexpr double kPlainInterval = 5;       // seconds: a log file is not flooded by a 100 GB model

}  // namespace

LoadDisplay::LoadDisplay(std::string doing, std::string did)
    : doing_(std::move(doing)),
      did_(std::move(did)),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_(std::chrono::steady_clock::now()) {}

double LoadDisplay::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

void LoadDisplay::update(uint64_t done, uint64_t total) {
  const double now = seconds();
  if (now - shown_at_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  shown_at_ = now;
  const double share = total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total);
  if (terminal_) {
    constexpr int width = 30;
    const int filled = static_cast<int>(share * width);
    fmt::print(stderr, "\r{} weights [{:-<{}}] {:3.0f}%  {} of {} \033[K", doing_, std::string(filled, '#'),
               width, share * 100, format_bytes(done), format_bytes(total));
  } else {
    fmt::print(stderr, "{} weights: {:.0f}%, {} of {}, {:.1f} s\n", doing_, share * 100, format_bytes(done),
               format_bytes(total), now);
  }
  std::fflush(stderr);
}

void LoadDisplay::finish(uint64_t total) {
  fmt::print(stderr, "{}{} {} of weights in {:.1f} s\n", terminal_ ? "\r\033[K" : "", did_,
             format_bytes(total), seconds());
}

std::string format_bytes(uint64_t bytes) {
  const double value = static_cast<double>(bytes);
  if (bytes >= 1'000'000'000) return fmt::format("{:.1f} GB", value / 1e9);
  if (bytes >= 1'000'000) return fmt::format("{:.1f} MB", value / 1e6);
  return fmt::format("{:.1f} kB", value / 1e3);
}

}  // namespace tramontane
