// ApiKeys: who may call. Immutable after construction; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tramontane {

struct ApiKeyIdentity {
  std::string name;  // "key-1": for logs, by position; never the key
  std::string salt;  // for the prefix cache
};

class ApiKeys {
 public:
  // `file`: one key a line, blank lines and lines starting with # skipped; empty: none. Throws
  // std::runtime_error naming the file.
  ApiKeys(const std::vector<std::string>& keys, const std::string& file);

  bool required() const { return !digests_.empty(); }
  // The key's identity, or nothing when it is not one of ours. Takes the same time whichever key it is, and
  // however much of it is right.
  std::optional<ApiKeyIdentity> identify(std::string_view key) const;

 private:
  using Digest = std::array<uint8_t, 32>;
  std::vector<Digest> digests_;  // SHA-256: equal lengths, so that comparing tells nothing about a key's
};

}  // namespace tramontane
