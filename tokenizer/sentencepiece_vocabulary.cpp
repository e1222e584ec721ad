#include "tokenizer/sentencepiece_vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <stdexcept>
#include <unordered_set>

#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

using Piece = SentencePieceVocabulary::Piece;

// Unused pieces are taken apart recursively, a call for each character at worst. Real pieces have at most a
// few dozen bytes.
constexpr size_t kLongestPiece = 1024;
// The library finds user-defined pieces with an array of this many matches that begin at one place, and reads
// past its end when there are more.
constexpr size_t kMostNestedPieces = 64;

class VocabularyCheck {
 public:
  VocabularyCheck(const SentencePieceVocabulary& vocabulary, const std::string& name)
      : vocabulary_(vocabulary), name_(name) {}

  void run() {
    for (size_t id = 0; id < vocabulary_.pieces.size(); ++id) check_piece(id);
    if (unknown_pieces_ == 0) fail("no unknown piece");
    const auto missing = std::find(has_byte_.begin(), has_byte_.end(), false);
    if (missing != has_byte_.end()) {
      fail("byte fallback needs all 256 byte pieces, and the one for byte " +
           std::to_string(missing - has_byte_.begin()) + " is missing");
    }
    check_nesting();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(name_ + ": " + what); }

  void check_piece(size_t id) {
    const Piece& piece = vocabulary_.pieces[id];
    const auto fail_piece = [&](const std::string& what) { fail("piece " + std::to_string(id) + what); };
    if (piece.text.empty()) fail_piece(" is empty");
    if (piece.text.size() > kLongestPiece) {
      fail_piece(": " + std::to_string(piece.text.size()) + " bytes, more than " +
                 std::to_string(kLongestPiece));
    }
    if (!is_valid_utf8(piece.text)) fail_piece(" is not valid UTF-8");
    if (!std::isfinite(piece.score)) fail_piece(": its score is not a finite number");
    // One name for a control and a normal piece would let text spell the control piece.
    if (!names_.insert(piece.text).second)
      fail_piece(": \"" + piece.text.substr(0, 40) + "\" is already defined");
    if (const char* fault = fault_of_type(piece)) fail_piece(fault);
  }

  // What makes the piece unfit for its type; null: nothing.
  const char* fault_of_type(const Piece& piece) {
    const bool one_character = utf8_head(piece.text).length == piece.text.size();
    switch (piece.type) {
      case PieceType::byte: {
        const auto byte = byte_of_piece(piece.text);
        if (!byte) return ": a byte piece must read <0x00> … <0xFF>";
        has_byte_[*byte] = true;
        return nullptr;
      }
      case PieceType::unknown:
        if (++unknown_pieces_ > 1) return ": a second unknown piece";
        return one_character ? ": the unknown piece is a character that texts have" : nullptr;
      case PieceType::control:
        // The library looks characters up by name, whatever their type.
        return one_character ? ": a control piece that is a character of texts" : nullptr;
      case PieceType::user_defined:
        // The library's index of them takes C strings.
        return piece.text.find('\0') != std::string::npos ? ": a user-defined piece with a zero byte"
                                                          : nullptr;
      case PieceType::normal:
      case PieceType::unused:
        return nullptr;
    }
    return ": unknown type";
  }

  void check_nesting() const {
    std::vector<std::string_view> texts, prefixes;
    for (const Piece& piece : vocabulary_.pieces) {
      if (piece.type == PieceType::user_defined) texts.push_back(piece.text);
    }
    std::sort(texts.begin(), texts.end());  // a text comes after all its prefixes
    for (const std::string_view text : texts) {
      while (!prefixes.empty() && !text.starts_with(prefixes.back())) prefixes.pop_back();
      prefixes.push_back(text);
      if (prefixes.size() > kMostNestedPieces) {
        fail("more than " + std::to_string(kMostNestedPieces) + " user-defined pieces begin one another");
      }
    }
  }

  const SentencePieceVocabulary& vocabulary_;
  const std::string& name_;
  std::unordered_set<std::string_view> names_;
  std::array<bool, 256> has_byte_ = {};
  int unknown_pieces_ = 0;
};

// protobuf's wire format: a key (number of the field and how its value is written), then the value.
void append_varint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(0x80 | (value & 0x7F));
  out += static_cast<char>(value);
}

void append_number(uint64_t field, uint64_t value, std::string& out) {
  append_varint(field << 3, out);
  append_varint(value, out);
}

void append_bytes(uint64_t field, std::string_view bytes, std::string& out) {
  append_varint(field << 3 | 2, out);
  append_varint(bytes.size(), out);
  out += bytes;
}

void append_float(uint64_t field, float value, std::string& out) {
  append_varint(field << 3 | 5, out);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift & 0xFF);
}

}  // namespace

std::optional<unsigned char> byte_of_piece(std::string_view piece) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const size_t high = kHex.find(piece[3]), low = kHex.find(piece[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<unsigned char>(high * 16 + low);
}

void check_vocabulary(const SentencePieceVocabulary& vocabulary, const std::string& name) {
  VocabularyCheck(vocabulary, name).run();
}

// Field numbers: sentencepiece_model.proto.
std::string serialize_sentencepiece_model(const SentencePieceVocabulary& vocabulary) {
  std::string out, message;
  for (const Piece& piece : vocabulary.pieces) {
    message.clear();
    append_bytes(1, piece.text, message);
    append_float(2, piece.score, message);
    append_number(3, static_cast<uint64_t>(piece.type), message);
    append_bytes(1, message, out);
  }
  message.clear();
  append_number(3, 2, message);   // trainer_spec.model_type: BPE
  append_number(35, 1, message);  // byte_fallback
  append_bytes(2, message, out);
  message.clear();
  append_bytes(1, "identity", message);  // normalizer_spec.name
  append_number(3, vocabulary.add_dummy_prefix, message);
  append_number(4, 0, message);  // remove_extra_whitespaces
  append_number(5, 1, message);  // escape_whitespaces
  append_bytes(3, message, out);
  return out;
}

}  // namespace tramontane
