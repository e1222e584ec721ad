#include "server/api_keys.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <fstream>
#include <stdexcept>

namespace tramontane {
namespace {

std::array<uint8_t, 32> sha256(std::string_view text) {
  std::array<uint8_t, 32> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest.data());
  return digest;
}

std::string trimmed(const std::string& line) {
  const char* const blank = " \t\r\n";
  const size_t begin = line.find_first_not_of(blank);
  if (begin == std::string::npos) return {};
  return line.substr(begin, line.find_last_not_of(blank) - begin + 1);
}

}  // namespace

ApiKeys::ApiKeys(const std::vector<std::string>& keys, const std::string& file) {
  for (const std::string& key : keys) {
    if (key.empty()) throw std::runtime_error("--api-key: an empty key was given");
    digests_.push_back(sha256(key));
  }
  if (file.empty()) return;
  std::ifstream in(file);
  if (!in) throw std::runtime_error("--api-key-file: cannot read " + file);
  for (std::string line; std::getline(in, line);) {
    const std::string key = trimmed(line);
    if (!key.empty() && key[0] != '#') digests_.push_back(sha256(key));
  }
  // An empty file must not open the server to everyone.
  if (digests_.empty()) throw std::runtime_error("--api-key-file: no key in " + file);
}

std::optional<ApiKeyIdentity> ApiKeys::identify(std::string_view key) const {
  const Digest given = sha256(key);
  std::optional<size_t> found;
  for (size_t i = 0; i < digests_.size(); ++i) {
    if (CRYPTO_memcmp(digests_[i].data(), given.data(), given.size()) == 0 && !found) found = i;
  }
  if (!found) return std::nullopt;
  return ApiKeyIdentity{"key-" + std::to_string(*found + 1), std::string(given.begin(), given.end())};
}

}  // namespace tramontane
