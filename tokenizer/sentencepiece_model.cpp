// Reads the few fields of sentencepiece_model.proto that matter, with protobuf's wire format spelled out: a
// model file comes from outside, and every length in it is checked against what is there.
#include <cstring>
#include <optional>
#include <stdexcept>

#include "tokenizer/sentencepiece_vocabulary.h"

namespace tramontane {
namespace {

enum class WireType : uint32_t { varint = 0, fixed64 = 1, bytes = 2, fixed32 = 5 };

struct Field {
  uint64_t number;
  WireType type;
  uint64_t value;          // varint, fixed32, fixed64
  std::string_view bytes;  // bytes
};

// The fields of one message, in order. Throws std::runtime_error at the first byte that is no protobuf.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& name) : rest_(bytes), name_(name) {}

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const uint64_t key = varint();
    Field field{key >> 3, static_cast<WireType>(key & 7), 0, {}};
    switch (field.type) {
      case WireType::varint:
        field.value = varint();
        break;
      case WireType::fixed64:
        field.value = fixed(8);
        break;
      case WireType::fixed32:
        field.value = fixed(4);
        break;
      case WireType::bytes:
        field.bytes = take(varint());
        break;
      default:
        fail("wire type " + std::to_string(key & 7));
    }
    if (field.number == 0) fail("field number 0");
    return field;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(name_ + ": not a SentencePiece model (protobuf): " + what);
  }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) {
      fail("truncated: a field of " + std::to_string(count) + " bytes where " + std::to_string(rest_.size()) +
           " are left");
    }
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a varint longer than 10 bytes");
  }
  uint64_t fixed(size_t count) {
    uint64_t value = 0;
    const std::string_view bytes = take(count);
    for (size_t i = count; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    return value;
  }

  std::string_view rest_;
  const std::string& name_;
};

class ModelParser {
 public:
  explicit ModelParser(const std::string& name) : name_(name) {}

  SentencePieceVocabulary parse(std::string_view bytes) {
    MessageReader reader(bytes, name_);
    while (const auto field = reader.next()) {
      if (field->number == 1) add_piece(text(*field, "pieces"));
      if (field->number == 2) read_trainer(text(*field, "trainer_spec"));
      if (field->number == 3) read_normalizer(text(*field, "normalizer_spec"));
      if (field->number == 5) read_denormalizer(text(*field, "denormalizer_spec"));
    }
    if (out_.pieces.empty()) fail("not a SentencePiece model: no pieces");
    if (model_type_ != 2) {
      const char* names[] = {"0", "unigram", "BPE", "word", "char"};
      fail(std::string("expected a BPE model, got model type ") +
           (model_type_ < 5 ? names[model_type_] : std::to_string(model_type_)));
    }
    if (!byte_fallback_) fail("expected a model with byte fallback, got one without");
    if (remove_extra_whitespaces_) fail("remove_extra_whitespaces is not supported");
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw std::runtime_error(name_ + ": " + what); }

  std::string_view text(const Field& field, const char* what) const {
    if (field.type != WireType::bytes)
      fail(std::string("not a SentencePiece model: ") + what + " has the wrong wire type");
    return field.bytes;
  }
  uint64_t number(const Field& field, WireType type, const char* what) const {
    if (field.type != type)
      fail(std::string("not a SentencePiece model: ") + what + " has the wrong wire type");
    return field.value;
  }

  void add_piece(std::string_view bytes) {
    SentencePieceVocabulary::Piece piece;
    MessageReader reader(bytes, name_);
    while (const auto field = reader.next()) {
      if (field->number == 1) piece.text = text(*field, "piece");
      if (field->number == 2) {
        const auto bits = static_cast<uint32_t>(number(*field, WireType::fixed32, "score"));
        std::memcpy(&piece.score, &bits, sizeof bits);
      }
      if (field->number == 3) {
        const uint64_t type = number(*field, WireType::varint, "type");
        if (type < 1 || type > 6) {
          fail("piece " + std::to_string(out_.pieces.size()) + ": unknown type " + std::to_string(type));
        }
        piece.type = static_cast<PieceType>(type);
      }
    }
    out_.pieces.push_back(std::move(piece));
  }

  void read_trainer(std::string_view bytes) {
    MessageReader reader(bytes, name_);
    while (const auto field = reader.next()) {
      switch (field->number) {
        case 3:
          model_type_ = number(*field, WireType::varint, "model_type");
          break;
        case 24:
          if (number(*field, WireType::varint, "treat_whitespace_as_suffix"))
            fail("treat_whitespace_as_suffix is not supported");
          break;
        case 35:
          byte_fallback_ = number(*field, WireType::varint, "byte_fallback") != 0;
          break;
        case 44:
          out_.unk_surface = text(*field, "unk_surface");
          break;
        case 46:
          out_.bos_piece = text(*field, "bos_piece");
          break;
        case 47:
          out_.eos_piece = text(*field, "eos_piece");
          break;
        default:
          break;  // how the model was trained
      }
    }
  }

  void read_normalizer(std::string_view bytes) {
    MessageReader reader(bytes, name_);
    std::string normalizer = "unnamed";
    bool maps_characters = false;
    while (const auto field = reader.next()) {
      switch (field->number) {
        case 1:
          normalizer = text(*field, "normalizer name");
          break;
        case 2:
          maps_characters = !text(*field, "precompiled_charsmap").empty();
          break;
        case 3:
          out_.add_dummy_prefix = number(*field, WireType::varint, "add_dummy_prefix") != 0;
          break;
        case 4:
          remove_extra_whitespaces_ = number(*field, WireType::varint, "remove_extra_whitespaces") != 0;
          break;
        case 5:
          if (!number(*field, WireType::varint, "escape_whitespaces"))
            fail("escape_whitespaces = false is not supported");
          break;
        default:
          break;
      }
    }
    if (maps_characters)
      fail("expected the identity normalizer, got \"" + normalizer.substr(0, 40) + "\" with a character map");
  }

  void read_denormalizer(std::string_view bytes) {
    MessageReader reader(bytes, name_);
    while (const auto field = reader.next()) {
      if (field->number == 2 && !text(*field, "precompiled_charsmap").empty())
        fail("a denormalizer is not supported");
    }
  }

  const std::string& name_;
  SentencePieceVocabulary out_;
  uint64_t model_type_ = 1;  // protobuf defaults of the schema
  bool byte_fallback_ = false;
  bool remove_extra_whitespaces_ = true;
};

}  // namespace

SentencePieceVocabulary parse_sentencepiece_model(std::string_view bytes, const std::string& name) {
  return ModelParser(name).parse(bytes);
}

}  // namespace tramontane
