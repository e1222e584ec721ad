#include "tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <unordered_map>

#include "tokenizer/merge.h"
#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's visible space

std::string with_visible_spaces(std::string_view text, bool add_dummy_prefix) {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpace.size());
  if (add_dummy_prefix) out += kSpace;
  for (const char c : text) {
    if (c == ' ')
      out += kSpace;
    else
      out += c;
  }
  return out;
}

std::string with_plain_spaces(std::string_view piece) {
  std::string out;
  out.reserve(piece.size());
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpace);
    out += space ? ' ' : piece[0];
    piece.remove_prefix(space ? kSpace.size() : 1);
  }
  return out;
}

// A word is a run of spaces and what follows it up to the next space.
size_t end_of_word(std::string_view text, size_t begin) {
  while (text.substr(begin).starts_with(kSpace)) begin += kSpace.size();
  return std::min(text.find(kSpace, begin), text.size());
}

// "<0x0A>" to 10.
std::optional<unsigned char> byte_of_piece(std::string_view piece) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const size_t high = kHex.find(piece[3]), low = kHex.find(piece[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

class SentencePieceTokenizer;

// FORMATS 1e, "Decode": bytes are gathered into characters; the first visible piece loses one leading space.
class SentencePieceDecoder : public IncrementalDecoder {
 public:
  explicit SentencePieceDecoder(const SentencePieceTokenizer& tokenizer) : tokenizer_(tokenizer) {}
  void append(int32_t id, std::string& out) override;
  void finish(std::string& out) override {
    bytes_.finish(out);
    at_start_ = true;
  }

 private:
  const SentencePieceTokenizer& tokenizer_;
  Utf8Assembler bytes_;
  bool at_start_ = true;  // nothing visible yet
};

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceVocabulary vocabulary, const std::string& name)
      : vocabulary_(std::move(vocabulary)), name_(name) {
    for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) index_piece(static_cast<int32_t>(id));
    check_complete();
    for (std::vector<int32_t>& ids : user_defined_) {
      std::sort(ids.begin(), ids.end(), [this](int32_t a, int32_t b) {
        return vocabulary_.pieces[a].text.size() > vocabulary_.pieces[b].text.size();
      });
    }
    bos_id_ = control_id(vocabulary_.bos_piece).value_or(-1);
    eos_id_ = control_id(vocabulary_.eos_piece).value_or(-1);
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(vocabulary_.pieces.size()); }
  std::vector<int32_t> encode(std::string_view text) const override;
  std::unique_ptr<IncrementalDecoder> make_decoder() const override {
    return std::make_unique<SentencePieceDecoder>(*this);
  }
  std::string piece(int32_t id) const override { return at(id).text; }
  std::string token_bytes(int32_t id) const override {
    const SentencePieceVocabulary::Piece& piece = at(id);
    if (piece.type == PieceType::control) return {};
    if (piece.type == PieceType::unknown) return vocabulary_.unk_surface;
    if (piece.type == PieceType::byte) return std::string(1, static_cast<char>(*byte_of_piece(piece.text)));
    return with_plain_spaces(piece.text);
  }
  bool is_control(int32_t id) const override { return at(id).type == PieceType::control; }
  std::optional<int32_t> control_id(std::string_view piece) const override {
    const auto found = control_.find(piece);
    return found == control_.end() ? std::nullopt : std::optional(found->second);
  }
  int32_t bos_id() const override { return bos_id_; }
  bool adds_bos() const override { return vocabulary_.adds_bos && bos_id_ >= 0; }
  int32_t eos_id() const override { return eos_id_; }

  const SentencePieceVocabulary::Piece& at(int32_t id) const {
    if (id < 0 || id >= vocab_size()) {
      throw std::out_of_range("token id " + std::to_string(id) + " is not in the vocabulary of " +
                              std::to_string(vocab_size()));
    }
    return vocabulary_.pieces[id];
  }
  const SentencePieceVocabulary& vocabulary() const { return vocabulary_; }

 private:
  // How an unused piece came about, by its text: the lengths of the left part. It is taken apart again at the
  // end.
  using UnusedMerges = std::unordered_map<std::string_view, uint32_t>;

  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(name_ + ": " + what); }
  void index_piece(int32_t id);
  void check_complete() const;
  void split(std::string_view text, std::vector<MergeSymbol>& symbols) const;
  int32_t user_defined_at(std::string_view text) const;
  int32_t find_mergeable(std::string_view text) const {
    if (text.size() > longest_) return -1;
    const auto found = mergeable_.find(text);
    return found == mergeable_.end() ? -1 : found->second;
  }
  void encode_word(std::string_view word, Merger& merger, std::vector<int32_t>& ids) const;
  void append_ids(std::string_view symbol, const UnusedMerges& unused, std::vector<int32_t>& ids) const;

  SentencePieceVocabulary vocabulary_;
  std::string name_;
  std::unordered_map<std::string_view, int32_t> mergeable_,
      control_;  // normal, user-defined and unused pieces; views into vocabulary_
  std::array<std::vector<int32_t>, 256> user_defined_;  // by first byte, longest first
  std::array<int32_t, 256> byte_ids_ = [] {
    std::array<int32_t, 256> ids;
    ids.fill(-1);
    return ids;
  }();
  size_t longest_ = 0;
  bool words_are_independent_ =
      true;  // no piece reaches over the beginning of a word: words may be merged one by one
  int32_t unk_id_ = -1, bos_id_ = -1, eos_id_ = -1;
};

void SentencePieceTokenizer::index_piece(int32_t id) {
  const SentencePieceVocabulary::Piece& piece = vocabulary_.pieces[id];
  const std::string where = "piece " + std::to_string(id);
  if (piece.text.empty()) fail(where + " is empty");
  if (!is_valid_utf8(piece.text)) fail(where + " is not valid UTF-8");
  if (!std::isfinite(piece.score)) fail(where + ": its score is not a finite number");
  const bool mergeable = piece.type == PieceType::normal || piece.type == PieceType::user_defined ||
                         piece.type == PieceType::unused;
  auto& names = mergeable ? mergeable_ : control_;
  if (piece.type == PieceType::byte) {
    const auto byte = byte_of_piece(piece.text);
    if (!byte) fail(where + ": a byte piece must read <0x00> … <0xFF>");
    if (byte_ids_[*byte] >= 0) fail(where + ": byte " + piece.text + " is already defined");
    byte_ids_[*byte] = id;
  } else if (piece.type == PieceType::unknown) {
    if (unk_id_ >= 0) fail(where + ": a second unknown piece");
    unk_id_ = id;
  } else if (!names.emplace(piece.text, id).second) {
    fail(where + ": \"" + piece.text.substr(0, 40) + "\" is already defined");
  }
  if (mergeable) longest_ = std::max(longest_, piece.text.size());
  // An unused piece is taken apart as it was last put together anywhere in the text, so words then depend on
  // each other, too.
  if (mergeable && (end_of_word(piece.text, 0) != piece.text.size() || piece.type == PieceType::unused)) {
    words_are_independent_ = false;
  }
  if (piece.type == PieceType::user_defined)
    user_defined_[static_cast<unsigned char>(piece.text[0])].push_back(id);
}

void SentencePieceTokenizer::check_complete() const {
  if (unk_id_ < 0) fail("no unknown piece");
  const auto missing = std::find(byte_ids_.begin(), byte_ids_.end(), -1);
  if (missing != byte_ids_.end()) {
    fail("byte fallback needs all 256 byte pieces, and the one for byte " +
         std::to_string(missing - byte_ids_.begin()) + " is missing");
  }
}

int32_t SentencePieceTokenizer::user_defined_at(std::string_view text) const {
  for (const int32_t id : user_defined_[static_cast<unsigned char>(text[0])]) {
    if (text.starts_with(vocabulary_.pieces[id].text)) return id;
  }
  return -1;
}

// One symbol for each character, and one frozen symbol for each user-defined piece.
void SentencePieceTokenizer::split(std::string_view text, std::vector<MergeSymbol>& symbols) const {
  symbols.clear();
  for (size_t begin = 0; begin < text.size();) {
    const int32_t id = user_defined_at(text.substr(begin));
    const size_t length = id >= 0 ? vocabulary_.pieces[id].text.size() : utf8_head(text.substr(begin)).length;
    symbols.push_back(
        {.begin = static_cast<uint32_t>(begin), .length = static_cast<uint32_t>(length), .frozen = id >= 0});
    begin += length;
  }
}

void SentencePieceTokenizer::append_ids(std::string_view symbol, const UnusedMerges& unused,
                                        std::vector<int32_t>& ids) const {
  const int32_t id = find_mergeable(symbol);
  if (id >= 0 && vocabulary_.pieces[id].type == PieceType::unused) {
    if (const auto merge = unused.find(symbol); merge != unused.end()) {
      append_ids(symbol.substr(0, merge->second), unused, ids);
      append_ids(symbol.substr(merge->second), unused, ids);
      return;
    }
  }
  if (id >= 0) {
    ids.push_back(id);
  } else {
    for (const char byte : symbol) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  }
}

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  if (text.empty()) return {};
  if (text.size() > UINT32_MAX / 4)
    throw std::length_error("text of " + std::to_string(text.size()) + " bytes: too long to encode");
  const std::string spaced = with_visible_spaces(is_valid_utf8(text) ? std::string(text) : repair_utf8(text),
                                                 vocabulary_.add_dummy_prefix);
  const std::string_view view = spaced;
  std::vector<int32_t> ids;
  ids.reserve(view.size() / 3);
  Merger merger;
  for (size_t begin = 0; begin < view.size();) {
    const size_t end = words_are_independent_ ? end_of_word(view, begin) : view.size();
    encode_word(view.substr(begin, end - begin), merger, ids);
    begin = end;
  }
  return ids;
}

void SentencePieceTokenizer::encode_word(std::string_view word, Merger& merger,
                                         std::vector<int32_t>& ids) const {
  split(word, merger.symbols);
  UnusedMerges unused;
  merger.run([&](const MergeSymbol& left, const MergeSymbol& right) -> std::optional<MergeResult> {
    const std::string_view both = word.substr(left.begin, left.length + right.length);
    const int32_t id = find_mergeable(both);
    if (id < 0) return std::nullopt;
    if (vocabulary_.pieces[id].type == PieceType::unused) unused[both] = left.length;
    return MergeResult{vocabulary_.pieces[id].score, id};
  });
  for (const MergeSymbol& symbol : merger.symbols) {
    if (symbol.length > 0) append_ids(word.substr(symbol.begin, symbol.length), unused, ids);
  }
}

void SentencePieceDecoder::append(int32_t id, std::string& out) {
  const SentencePieceVocabulary::Piece& piece = tokenizer_.at(id);
  if (piece.type == PieceType::byte) {
    const char byte = static_cast<char>(*byte_of_piece(piece.text));
    bytes_.append({&byte, 1}, out);
    at_start_ = false;  // whatever the bytes turn out to be, they are visible
    return;
  }
  bytes_.finish(out);
  if (piece.type == PieceType::control) return;
  if (piece.type == PieceType::unknown) {
    out += tokenizer_.vocabulary().unk_surface;
  } else {
    std::string_view text = piece.text;
    if (at_start_ && tokenizer_.vocabulary().add_dummy_prefix && text.starts_with(kSpace))
      text.remove_prefix(kSpace.size());
    out += with_plain_spaces(text);
  }
  at_start_ = false;
}

std::string read_file(const std::string& path) {
  constexpr uintmax_t kLargest = 256u << 20;  // real ones have half a megabyte to a few megabytes
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) throw std::runtime_error(path + ": cannot be read: " + error.message());
  if (size > kLargest) {
    throw std::runtime_error(path + ": " + std::to_string(size) +
                             " bytes, more than any SentencePiece model has");
  }
  std::string bytes(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(size)))
    throw std::runtime_error(path + ": cannot be read");
  return bytes;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(SentencePieceVocabulary vocabulary,
                                                              const std::string& name) {
  return std::make_shared<SentencePieceTokenizer>(std::move(vocabulary), name);
}

std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::string& path) {
  return make_sentencepiece_tokenizer(parse_sentencepiece_model(read_file(path), path), path);
}

}  // namespace tramontane
