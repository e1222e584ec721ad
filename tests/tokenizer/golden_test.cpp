// The golden cases: SentencePiece encode and decode, streaming deltas, and every chat in V1, V2 and V3.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/golden.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/stream_decoder.h"

namespace tramontane {
namespace {

using Json = nlohmann::ordered_json;  // keeps the order of keys, which the encodings depend on
using Ids = std::vector<int32_t>;

const std::map<std::string, std::string> kVocabularies = {
    {"v1", "tokenizer.model.v1"},
    {"v2", "mistral_instruct_tokenizer_240216.model.v2"},
    {"v3", "mistral_instruct_tokenizer_240323.model.v3"}};

Json read_json(const std::filesystem::path& path) {
  return Json::parse(std::ifstream(path));
}

std::string request_of(const Json& chat) {
  Json request;
  for (const char* key : {"messages", "tools", "continue_final_message"}) {
    if (chat.contains(key)) request[key] = chat[key];
  }
  return request.dump();
}

class GoldenVocabulary : public testing::TestWithParam<std::string> {};

TEST_P(GoldenVocabulary, Encode) {
  GOLDEN_OR_SKIP(cases_path, "tokenizer_cases.json");
  GOLDEN_OR_SKIP(model, "tokenizers/" + kVocabularies.at(GetParam()));
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  const Json cases = read_json(cases_path)["encode_cases"];
  ASSERT_GT(cases.size(), 400u);
  for (const Json& one : cases) {
    const auto text = one["text"].get<std::string>();
    const auto expected = one[GetParam()]["ids"].get<Ids>();
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(ids, expected) << one["id"] << " " << text;
    EXPECT_EQ(tokenizer->decode(ids), one[GetParam()].value("decoded", text)) << one["id"];
  }
}

TEST_P(GoldenVocabulary, DecodeAndDeltas) {
  GOLDEN_OR_SKIP(cases_path, "tokenizer_cases.json");
  GOLDEN_OR_SKIP(model, "tokenizers/" + kVocabularies.at(GetParam()));
  const auto tokenizer = load_sentencepiece_tokenizer(model);
  const Json cases = read_json(cases_path)["decode_cases"];
  ASSERT_GT(cases.size(), 100u);
  for (const Json& one : cases) {
    const Json& expected = one[GetParam()];
    const auto ids = expected["ids"].get<Ids>();
    EXPECT_EQ(tokenizer->decode(ids), expected["text"].get<std::string>()) << one["id"];
    StreamDecoder stream(*tokenizer, {});
    for (size_t i = 0; i < ids.size(); ++i) {
      EXPECT_EQ(stream.append(ids[i]), expected["deltas"][i].get<std::string>())
          << one["id"] << " delta " << i;
    }
    EXPECT_EQ(stream.finish(), expected["tail"].get<std::string>()) << one["id"];
  }
}

TEST_P(GoldenVocabulary, Chats) {
  GOLDEN_OR_SKIP(cases_path, "chat_cases.json");
  GOLDEN_OR_SKIP(model, "tokenizers/" + kVocabularies.at(GetParam()));
  const ChatTemplate chat_template(load_sentencepiece_tokenizer(model), *parse_chat_format(GetParam()));
  const Json chats = read_json(cases_path)["chats"];
  ASSERT_GT(chats.size(), 90u);
  for (const Json& chat : chats) {
    const Json& expected = chat[GetParam()];
    try {
      const EncodedChat encoded = chat_template.encode(request_of(chat));
      if (expected.contains("error")) {
        ADD_FAILURE() << chat["id"] << " was encoded, expected the error " << expected["error"];
        continue;
      }
      EXPECT_EQ(encoded.ids, expected["ids"].get<Ids>()) << chat["id"];
      EXPECT_EQ(encoded.text, expected["text"].get<std::string>()) << chat["id"];
    } catch (const ChatError& error) {
      EXPECT_TRUE(expected.contains("error")) << chat["id"] << ": " << error.what();
      EXPECT_NE(error.param, "") << chat["id"];
      if (!expected.contains("error") || expected["error"]["stage"] == "parse") continue;
      if (expected["error"]["type"] == "InvalidToolSchemaException")
        continue;  // the words are the schema checker's own
      EXPECT_EQ(error.what(), expected["error"]["message"].get<std::string>()) << chat["id"];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, GoldenVocabulary, testing::Values("v1", "v2", "v3"),
                         [](const auto& named) { return named.param; });

// The public 7B v0.3 checkpoint: V3's rules on the vocabulary file called v2. Only the user-defined pieces
// differ.
TEST(GoldenChats, V3RulesOnTheV2Vocabulary) {
  GOLDEN_OR_SKIP(cases_path, "chat_cases.json");
  GOLDEN_OR_SKIP(model, "tokenizers/" + kVocabularies.at("v2"));
  const ChatTemplate chat_template(load_sentencepiece_tokenizer(model), ChatFormat::v3);
  const Json chats = read_json(cases_path)["chats"];
  size_t compared = 0;
  for (const Json& chat : chats) {
    if (!chat["v3"].contains("ids") || chat["id"] == "refdoc") continue;
    EXPECT_EQ(chat_template.encode(request_of(chat)).ids, chat["v3"]["ids"].get<Ids>()) << chat["id"];
    ++compared;
  }
  EXPECT_GT(compared, 60u);
}

}  // namespace
}  // namespace tramontane
