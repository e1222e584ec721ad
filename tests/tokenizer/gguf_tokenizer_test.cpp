#include "tokenizer/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/tokenizer/sentencepiece_model_bytes.h"

namespace tramontane {
namespace {

using nlohmann::json;
using Ids = std::vector<int32_t>;

json bpe_metadata() {
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "smollm"},
          {"tokenizer.ggml.tokens", {"<e>", "a", "b", "ab"}},
          {"tokenizer.ggml.merges", {"a b"}},
          {"tokenizer.ggml.token_type", {3, 1, 1, 1}},
          {"tokenizer.ggml.eos_token_id", 0},
          {"tokenizer.ggml.add_bos_token", false}};
}

json sentencepiece_metadata() {
  json metadata = {{"tokenizer.ggml.model", "llama"},
                   {"tokenizer.ggml.bos_token_id", 1},
                   {"tokenizer.ggml.eos_token_id", 2}};
  ModelBytes model = ModelBytes::minimal();
  model.pieces.push_back({"\u2581", -3, PieceType::normal});
  model.pieces.push_back({"a", -2, PieceType::normal});
  model.pieces.push_back({"\u2581a", -1, PieceType::normal});
  for (const auto& piece : model.pieces) {
    metadata["tokenizer.ggml.tokens"].push_back(piece.text);
    metadata["tokenizer.ggml.scores"].push_back(piece.score);
    metadata["tokenizer.ggml.token_type"].push_back(static_cast<int>(piece.type));
  }
  return metadata;
}

TEST(GgufTokenizer, ByteLevelBpe) {
  const auto tokenizer = tokenizer_from_gguf(bpe_metadata());
  EXPECT_EQ(tokenizer->encode("abb"), (Ids{3, 2}));
  EXPECT_EQ(tokenizer->eos_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), -1);
  EXPECT_FALSE(tokenizer->adds_bos());
}

TEST(GgufTokenizer, SentencePiece) {
  const auto tokenizer = tokenizer_from_gguf(sentencepiece_metadata());
  EXPECT_EQ(tokenizer->encode("a\n"), (Ids{261, 3 + '\n'}));
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_TRUE(tokenizer->adds_bos());
  json metadata = sentencepiece_metadata();
  metadata["tokenizer.ggml.add_space_prefix"] = false;
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_EQ(tokenizer_from_gguf(metadata)->encode("a"), (Ids{260}));
  EXPECT_FALSE(tokenizer_from_gguf(metadata)->adds_bos());
}

TEST(GgufTokenizer, FaultsNameTheKey) {
  const auto fault = [](json metadata, const char* key, const json& value) -> std::string {
    if (key) metadata[key] = value;
    try {
      tokenizer_from_gguf(metadata);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(fault(bpe_metadata(), nullptr, {}), "");
  EXPECT_EQ(fault(json::object(), nullptr, {}), "GGUF metadata tokenizer.ggml.model: missing");
  EXPECT_EQ(fault(json(), nullptr, {}), "GGUF metadata tokenizer.ggml.model: missing");
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.model", "bert"),
              testing::HasSubstr("\"bert\" is not supported"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.model", 3), testing::HasSubstr("expected a string"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.tokens", "x"),
              testing::HasSubstr("tokens: expected an array"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.tokens", {1, 2, 3, 4}),
              testing::HasSubstr("tokens: expected strings"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.token_type", {1.5, 1, 1, 1}),
              testing::HasSubstr("expected an integer"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.eos_token_id", 4294967296),
              testing::HasSubstr("out of range"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.eos_token_id", 4), testing::HasSubstr("eos token 4"));
  EXPECT_THAT(fault(bpe_metadata(), "tokenizer.ggml.add_bos_token", 1), testing::HasSubstr("true or false"));
  EXPECT_THAT(fault(sentencepiece_metadata(), "tokenizer.ggml.scores", {1}), testing::HasSubstr("1 scores"));
  EXPECT_THAT(fault(sentencepiece_metadata(), "tokenizer.ggml.bos_token_id", 9999),
              testing::HasSubstr("9999 is not in"));
}

}  // namespace
}  // namespace tramontane
