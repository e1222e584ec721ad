#include "tokenizer/gguf_tokenizer.h"

#include <nlohmann/json.hpp>
#include <stdexcept>

#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/sentencepiece_tokenizer.h"

namespace tramontane {
namespace {

using nlohmann::json;

// Typed access to the metadata; every complaint names the key.
class Metadata {
 public:
  explicit Metadata(const json& object) : object_(object) {}

  std::string text(const std::string& key) const {
    const json& value = required(key);
    if (!value.is_string()) fail(key, "expected a string, got " + std::string(value.type_name()));
    return value.get<std::string>();
  }
  bool flag(const std::string& key, bool otherwise) const {
    const json* value = find(key);
    if (value && !value->is_boolean())
      fail(key, "expected true or false, got " + std::string(value->type_name()));
    return value ? value->get<bool>() : otherwise;
  }
  // A token id; -1 when the key is absent. That it is in the vocabulary is checked there.
  int32_t id(const std::string& key) const {
    const json* value = find(key);
    return value ? integer(key, *value) : -1;
  }
  std::vector<std::string> texts(const std::string& key) const {
    return list<std::string>(key, [&](const json& item) {
      if (!item.is_string()) fail(key, "expected strings, got " + std::string(item.type_name()));
      return item.get<std::string>();
    });
  }
  std::vector<int32_t> integers(const std::string& key) const {
    return list<int32_t>(key, [&](const json& item) { return integer(key, item); });
  }
  std::vector<float> floats(const std::string& key) const {
    return list<float>(key, [&](const json& item) {
      if (!item.is_number()) fail(key, "expected numbers, got " + std::string(item.type_name()));
      return static_cast<float>(item.get<double>());
    });
  }
  [[noreturn]] static void fail(const std::string& key, const std::string& what) {
    throw std::runtime_error("GGUF metadata " + key + ": " + what);
  }

 private:
  const json* find(const std::string& key) const {
    const auto found = object_.is_object() ? object_.find(key) : object_.end();
    return found == object_.end() ? nullptr : &*found;
  }
  const json& required(const std::string& key) const {
    const json* value = find(key);
    if (!value) fail(key, "missing");
    return *value;
  }
  static int32_t integer(const std::string& key, const json& value) {
    if (!value.is_number_integer()) fail(key, "expected an integer, got " + std::string(value.type_name()));
    const bool fits = value.is_number_unsigned()
                          ? value.get<uint64_t>() <= INT32_MAX
                          : value.get<int64_t>() >= INT32_MIN && value.get<int64_t>() <= INT32_MAX;
    if (!fits) fail(key, value.dump() + " is out of range");
    return value.get<int32_t>();
  }
  template <class T, class Convert>
  std::vector<T> list(const std::string& key, const Convert& convert) const {
    const json& value = required(key);
    if (!value.is_array()) fail(key, "expected an array, got " + std::string(value.type_name()));
    std::vector<T> items;
    items.reserve(value.size());
    for (const json& item : value) items.push_back(convert(item));
    return items;
  }

  const json& object_;
};

std::shared_ptr<const Tokenizer> byte_level_bpe(const Metadata& metadata) {
  return make_bpe_tokenizer({.tokens = metadata.texts("tokenizer.ggml.tokens"),
                             .merges = metadata.texts("tokenizer.ggml.merges"),
                             .types = metadata.integers("tokenizer.ggml.token_type"),
                             .pre = metadata.text("tokenizer.ggml.pre"),
                             .bos_id = metadata.id("tokenizer.ggml.bos_token_id"),
                             .eos_id = metadata.id("tokenizer.ggml.eos_token_id"),
                             .unk_id = metadata.id("tokenizer.ggml.unknown_token_id"),
                             .add_bos = metadata.flag("tokenizer.ggml.add_bos_token", false),
                             .add_space_prefix = metadata.flag("tokenizer.ggml.add_space_prefix", false)});
}

// The name of a control piece, given by id in GGUF and by spelling in a SentencePiece vocabulary.
std::string control_piece(const Metadata& metadata, const char* key,
                          const SentencePieceVocabulary& vocabulary) {
  const int32_t id = metadata.id(key);
  if (id < 0) return "";
  if (static_cast<size_t>(id) >= vocabulary.pieces.size()) {
    Metadata::fail(
        key, std::to_string(id) + " is not in the vocabulary of " + std::to_string(vocabulary.pieces.size()));
  }
  return vocabulary.pieces[id].text;
}

std::shared_ptr<const Tokenizer> sentencepiece(const Metadata& metadata) {
  std::vector<std::string> tokens = metadata.texts("tokenizer.ggml.tokens");
  const std::vector<float> scores = metadata.floats("tokenizer.ggml.scores");
  const std::vector<int32_t> types = metadata.integers("tokenizer.ggml.token_type");
  if (scores.size() != tokens.size() || types.size() != tokens.size()) {
    Metadata::fail("tokenizer.ggml.tokens", std::to_string(tokens.size()) + " tokens, but " +
                                                std::to_string(scores.size()) + " scores and " +
                                                std::to_string(types.size()) + " types");
  }
  SentencePieceVocabulary vocabulary;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] < 1 || types[id] > 6) {
      Metadata::fail("tokenizer.ggml.token_type",
                     "token " + std::to_string(id) + ": unknown type " + std::to_string(types[id]));
    }
    vocabulary.pieces.push_back({std::move(tokens[id]), scores[id], static_cast<PieceType>(types[id])});
  }
  vocabulary.bos_piece = control_piece(metadata, "tokenizer.ggml.bos_token_id", vocabulary);
  vocabulary.eos_piece = control_piece(metadata, "tokenizer.ggml.eos_token_id", vocabulary);
  vocabulary.add_dummy_prefix = metadata.flag("tokenizer.ggml.add_space_prefix", true);
  vocabulary.adds_bos = metadata.flag("tokenizer.ggml.add_bos_token", true);
  return make_sentencepiece_tokenizer(std::move(vocabulary), "GGUF metadata tokenizer.ggml.tokens");
}

}  // namespace

std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const json& object) {
  const Metadata metadata(object);
  const std::string model = metadata.text("tokenizer.ggml.model");
  if (model == "gpt2") return byte_level_bpe(metadata);
  if (model == "llama") return sentencepiece(metadata);
  Metadata::fail("tokenizer.ggml.model",
                 "\"" + model.substr(0, 40) + "\" is not supported (expected \"gpt2\" or \"llama\")");
}

}  // namespace tramontane
