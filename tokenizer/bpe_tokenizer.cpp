#include "tokenizer/bpe_tokenizer.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <unordered_map>

#include "tokenizer/merge.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

// GPT-2's spelling of bytes as printable characters: bytes that print stand for themselves, the others for
// U+0100, U+0101, …
std::array<std::string, 256> byte_spellings() {
  const auto prints = [](int byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
  };
  std::array<std::string, 256> spellings;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    append_utf8(static_cast<uint32_t>(prints(byte) ? byte : next++), spellings[byte]);
  }
  return spellings;
}

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeVocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
    check_settings();
    for (int byte = 0; byte < 256; ++byte)
      byte_of_spelling_.emplace(spellings_[byte], static_cast<unsigned char>(byte));
    for (int32_t id = 0; id < vocab_size(); ++id) index_token(id);
    for (size_t rank = 0; rank < vocabulary_.merges.size(); ++rank) index_merge(rank);
    for (int byte = 0; byte < 256; ++byte) byte_ids_[byte] = find_token(spellings_[byte]);
    check_id(vocabulary_.bos_id, "bos");
    check_id(vocabulary_.eos_id, "eos");
    check_id(vocabulary_.unk_id, "unknown");
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(vocabulary_.tokens.size()); }
  std::vector<int32_t> encode(std::string_view text) const override;
  std::unique_ptr<IncrementalDecoder> make_decoder() const override;
  std::string piece(int32_t id) const override { return check_range(id), vocabulary_.tokens[id]; }
  std::string token_bytes(int32_t id) const override;
  bool is_control(int32_t id) const override { return check_range(id), !is_text(vocabulary_.types[id]); }
  std::optional<int32_t> control_id(std::string_view piece) const override {
    const auto found = control_.find(piece);
    return found == control_.end() ? std::nullopt : std::optional(found->second);
  }
  int32_t bos_id() const override { return vocabulary_.bos_id; }
  bool adds_bos() const override { return vocabulary_.add_bos && vocabulary_.bos_id >= 0; }
  int32_t eos_id() const override { return vocabulary_.eos_id; }

 private:
  static constexpr int32_t kNormal = 1, kUserDefined = 4;  // GGUF's token types
  static bool is_text(int32_t type) { return type == kNormal || type == kUserDefined; }

  [[noreturn]] static void fail(const std::string& what) {
    throw std::runtime_error("byte-level BPE vocabulary: " + what);
  }
  void check_settings() const;
  void index_token(int32_t id);
  void index_merge(size_t rank);
  void check_id(int32_t id, const char* what) const {
    if (id < -1 || id >= vocab_size()) {
      fail(std::string(what) + " token " + std::to_string(id) + " is not in the vocabulary of " +
           std::to_string(vocab_size()));
    }
  }
  void check_range(int32_t id) const {
    if (id < 0 || id >= vocab_size()) {
      throw std::out_of_range("token id " + std::to_string(id) + " is not in the vocabulary of " +
                              std::to_string(vocab_size()));
    }
  }
  int32_t find_token(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? -1 : found->second;
  }
  int32_t user_defined_at(std::string_view text) const;
  void encode_plain(std::string_view text, Merger& merger, std::vector<int32_t>& ids) const;
  void encode_word(std::string_view word, Merger& merger, std::vector<int32_t>& ids) const;

  static uint64_t pair_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  struct PairHash {
    size_t operator()(uint64_t key) const {
      return static_cast<size_t>((key ^ key >> 29) * 0x9E3779B97F4A7C15u);
    }
  };

  BpeVocabulary vocabulary_;
  const std::array<std::string, 256> spellings_ = byte_spellings();
  std::unordered_map<std::string_view, unsigned char> byte_of_spelling_;
  std::unordered_map<std::string_view, int32_t> ids_,
      control_;  // text tokens; control tokens and the like. Views into vocabulary_
  std::unordered_map<uint64_t, MergeResult, PairHash> merges_;
  std::array<int32_t, 256> byte_ids_{};
  std::array<std::vector<int32_t>, 256> user_defined_;  // by first byte, longest first
};

class BpeDecoder : public IncrementalDecoder {
 public:
  explicit BpeDecoder(const BpeTokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void append(int32_t id, std::string& out) override {
    if (tokenizer_.is_control(id))
      bytes_.finish(out);
    else
      bytes_.append(tokenizer_.token_bytes(id), out);
  }
  void finish(std::string& out) override { bytes_.finish(out); }

 private:
  const BpeTokenizer& tokenizer_;
  Utf8Assembler bytes_;
};

void BpeTokenizer::check_settings() const {
  if (vocabulary_.pre != "smollm") {
    fail("pre-tokeniser \"" + vocabulary_.pre.substr(0, 40) + "\" is not supported (expected \"smollm\")");
  }
  if (vocabulary_.add_space_prefix) fail("add_space_prefix is not supported");
  if (vocabulary_.tokens.empty()) fail("no tokens");
  if (vocabulary_.types.size() != vocabulary_.tokens.size()) {
    fail(std::to_string(vocabulary_.tokens.size()) + " tokens but " +
         std::to_string(vocabulary_.types.size()) + " token types");
  }
}

void BpeTokenizer::index_token(int32_t id) {
  const std::string& token = vocabulary_.tokens[id];
  const std::string where = "token " + std::to_string(id);
  if (token.empty()) fail(where + " is empty");
  if (!is_valid_utf8(token)) fail(where + " is not valid UTF-8");
  auto& names = is_text(vocabulary_.types[id]) ? ids_ : control_;
  if (!names.emplace(token, id).second) fail(where + ": \"" + token.substr(0, 40) + "\" is already defined");
  if (vocabulary_.types[id] != kUserDefined) return;
  std::vector<int32_t>& same_start = user_defined_[static_cast<unsigned char>(token[0])];
  const auto shorter = std::find_if(same_start.begin(), same_start.end(), [&](int32_t other) {
    return vocabulary_.tokens[other].size() < token.size();
  });
  same_start.insert(shorter, id);
}

void BpeTokenizer::index_merge(size_t rank) {
  const std::string_view merge = vocabulary_.merges[rank];
  const size_t space = merge.find(' ', 1);
  const auto bad = [&](const std::string& what) {
    fail("merge " + std::to_string(rank) + " (\"" + std::string(merge.substr(0, 40)) + "\"): " + what);
  };
  if (space == std::string_view::npos) bad("expected two tokens with a space between");
  const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
  const int32_t left_id = find_token(left), right_id = find_token(right);
  const int32_t merged_id = find_token(std::string(left) + std::string(right));
  if (left_id < 0 || right_id < 0 || merged_id < 0) bad("it names no token");
  // Float priorities are exact up to 2^24 merges; vocabularies have 10^5.
  if (rank >= 1u << 24) bad("too many merges");
  merges_.emplace(pair_key(left_id, right_id),
                  MergeResult{-static_cast<float>(rank), merged_id});  // of duplicates, the best
}

int32_t BpeTokenizer::user_defined_at(std::string_view text) const {
  for (const int32_t id : user_defined_[static_cast<unsigned char>(text[0])]) {
    if (text.starts_with(vocabulary_.tokens[id])) return id;
  }
  return -1;
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text) const {
  if (text.size() > UINT32_MAX / 4)
    throw std::length_error("text of " + std::to_string(text.size()) + " bytes: too long to encode");
  std::string repaired;
  if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  Merger merger;
  size_t plain = 0;  // where the text since the last user-defined token begins
  for (size_t i = 0; i < text.size();) {
    const int32_t id = user_defined_at(text.substr(i));
    if (id < 0) {
      ++i;
      continue;
    }
    encode_plain(text.substr(plain, i - plain), merger, ids);
    ids.push_back(id);
    plain = i += vocabulary_.tokens[id].size();
  }
  encode_plain(text.substr(plain), merger, ids);
  return ids;
}

void BpeTokenizer::encode_plain(std::string_view text, Merger& merger, std::vector<int32_t>& ids) const {
  for (const std::string_view word : split_smollm(text)) encode_word(word, merger, ids);
}

void BpeTokenizer::encode_word(std::string_view word, Merger& merger, std::vector<int32_t>& ids) const {
  merger.symbols.clear();
  for (size_t i = 0; i < word.size(); ++i) {
    // A byte that the vocabulary lacks is a symbol that nothing merges with, and is dropped at the end, as
    // llama.cpp does.
    merger.symbols.push_back({.begin = static_cast<uint32_t>(i),
                              .length = 1,
                              .id = byte_ids_[static_cast<unsigned char>(word[i])]});
  }
  merger.run([this](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<MergeResult> {
    const auto found = merges_.find(pair_key(left.id, right.id));
    return found == merges_.end() ? std::nullopt : std::optional(found->second);
  });
  for (const MergeSymbol& symbol : merger.symbols) {
    if (symbol.length > 0 && symbol.id >= 0) ids.push_back(symbol.id);
  }
}

std::string BpeTokenizer::token_bytes(int32_t id) const {
  check_range(id);
  const std::string_view token = vocabulary_.tokens[id];
  if (!is_text(vocabulary_.types[id])) return {};
  if (vocabulary_.types[id] == kUserDefined) return std::string(token);
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const std::string_view c = token.substr(i, utf8_head(token.substr(i)).length);
    const auto found = byte_of_spelling_.find(c);
    if (found != byte_of_spelling_.end())
      bytes += static_cast<char>(found->second);
    else
      bytes += c;  // not a byte's spelling: the character itself
    i += c.size();
  }
  return bytes;
}

std::unique_ptr<IncrementalDecoder> BpeTokenizer::make_decoder() const {
  return std::make_unique<BpeDecoder>(*this);
}

}  // namespace

std::shared_ptr<const Tokenizer> make_bpe_tokenizer(BpeVocabulary vocabulary) {
  return std::make_shared<BpeTokenizer>(std::move(vocabulary));
}

}  // namespace tramontane
