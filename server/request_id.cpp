#include "server/request_id.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>

namespace tramontane {

std::string random_hex() {
  thread_local std::mt19937_64 generator = [] {
    std::random_device device;
    std::seed_seq words{device(), device(), device(), device()};
    return std::mt19937_64(words);
  }();
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(generator()),
                static_cast<unsigned long long>(generator()));
  return text;
}

std::string request_id(std::string_view from_client) {
  const bool visible =
      std::all_of(from_client.begin(), from_client.end(), [](char c) { return c > ' ' && c < 0x7F; });
  if (!from_client.empty() && from_client.size() <= 128 && visible) return std::string(from_client);
  return "req-" + random_hex();
}

}  // namespace tramontane
