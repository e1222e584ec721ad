#include "tokenizer/sentencepiece_tokenizer.h"

#include <sentencepiece_processor.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <unordered_map>

#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, SentencePiece's visible space

// The library counts bytes in int, and a space becomes three of them.
constexpr size_t kLongestText = INT32_MAX / 4;

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
    check_vocabulary(vocabulary_, name_);
    check(library_.LoadFromSerializedProto(serialize_sentencepiece_model(vocabulary_)));
    for (int32_t id = 0; id < vocab_size(); ++id) {
      if (is_control(id)) control_.emplace(vocabulary_.pieces[id].text, id);
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
  void check(const sentencepiece::util::Status& status) const {
    if (!status.ok()) throw std::runtime_error(name_ + ": SentencePiece: " + status.error_message());
  }

  SentencePieceVocabulary vocabulary_;
  std::string name_;
  sentencepiece::SentencePieceProcessor library_;          // encoding is const in it: any number of threads
  std::unordered_map<std::string_view, int32_t> control_;  // views into vocabulary_
  int32_t bos_id_ = -1, eos_id_ = -1;
};

std::vector<int32_t> SentencePieceTokenizer::encode(std::string_view text) const {
  if (text.empty()) return {};
  if (text.size() > kLongestText)
    throw std::length_error("text of " + std::to_string(text.size()) + " bytes: too long to encode");
  std::vector<int32_t> ids;
  check(library_.Encode(text, &ids));
  return ids;
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
