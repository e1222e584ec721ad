// Byte-level BPE: SmolLM2's vocabulary from its GGUF file against ids of Hugging Face's tokenizers, and small
// vocabularies.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/weights/gguf.h"
#include "engine/weights/mapped_file.h"
#include "tests/support/golden.h"
#include "tokenizer/bpe_tokenizer.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/gguf_tokenizer.h"
#include "tokenizer/pretokenizer.h"
#include "tokenizer/utf8.h"

namespace tramontane {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::shared_ptr<const Tokenizer> smollm2(const std::filesystem::path& model) {
  return tokenizer_from_gguf(read_gguf(MappedFile::open(model)).metadata);
}

TEST(Pretokenizer, CutsAsGpt2DoesWithSingleDigits) {
  EXPECT_THAT(split_smollm("What is 2+2?"), ElementsAre("What", " is", " ", "2", "+", "2", "?"));
  EXPECT_THAT(split_smollm("I've don't '"), ElementsAre("I", "'ve", " don", "'t", " '"));
  EXPECT_THAT(split_smollm("a  b\n\nc \n"), ElementsAre("a", " ", " b", "\n", "\n", "c", " \n"));
  EXPECT_THAT(split_smollm("   12"), ElementsAre("   ", "1", "2"));
  EXPECT_THAT(split_smollm(" \u00BD\u2167"),
              ElementsAre(" ", "\u00BD", "\u2167"));  // a half, and the numeral VIII: numbers
  EXPECT_THAT(split_smollm("\u00A0x \u3000"), ElementsAre("\u00A0", "x", " \u3000"));
  EXPECT_THAT(split_smollm(" e\u0301..."),
              ElementsAre(" e", "\u0301..."));  // a combining accent is no letter
  EXPECT_THAT(split_smollm("we'd I'm you're he'll it's"),
              ElementsAre("we", "'d", " I", "'m", " you", "'re", " he", "'ll", " it", "'s"));
  EXPECT_THAT(split_smollm("a\x1c!"),
              ElementsAre("a", "\x1c!"));  // a separator to C, no white space to Unicode
  EXPECT_THAT(split_smollm(""), ElementsAre());
}

TEST(SmolLM2, ReproducesHuggingFacesIds) {
  DEFAULT_MODEL_OR_SKIP(model);
  const auto tokenizer = smollm2(model);
  const json cases = json::parse(std::ifstream(TRAMONTANE_SOURCE_DIR "/tests/tokenizer/smollm2_cases.json"));
  ASSERT_GE(cases.size(), 60u);
  for (const json& one : cases) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(tokenizer->encode(text), one["ids"].get<Ids>()) << text;
    EXPECT_EQ(tokenizer->decode(one["ids"].get<Ids>()), text);
  }
}

TEST(SmolLM2, ReproducesTheGoldenChats) {
  DEFAULT_MODEL_OR_SKIP(model);
  GOLDEN_OR_SKIP(expected_path, "smollm2.expected.json");
  const auto tokenizer = smollm2(model);
  EXPECT_EQ(guess_chat_format(*tokenizer), ChatFormat::chatml);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_FALSE(tokenizer->adds_bos());
  const ChatTemplate chat_template(tokenizer, ChatFormat::chatml);
  const json expected = json::parse(std::ifstream(expected_path));
  ASSERT_EQ(expected["prompts"].size(), 10u);
  for (const json& prompt : expected["prompts"]) {
    const json request = {{"messages", {{{"role", "user"}, {"content", prompt["text"]}}}}};
    EXPECT_EQ(chat_template.encode(request.dump()).ids, prompt["ids"].get<Ids>()) << prompt["text"];
    // The golden text keeps "system", "user" and newlines, and leaves out the control tokens: the decoder's
    // rule.
    EXPECT_EQ(tokenizer->decode(prompt["hf_fp32"]["greedy"].get<Ids>()),
              prompt["hf_fp32"]["text"].get<std::string>());
  }
}

TEST(SmolLM2, ChatMlWithSystemMessageAndContinuation) {
  DEFAULT_MODEL_OR_SKIP(model);
  const auto tokenizer = smollm2(model);
  const ChatTemplate chat_template(tokenizer, ChatFormat::chatml);
  const auto text_of = [&](const std::string& request) { return chat_template.encode(request).text; };
  EXPECT_EQ(
      text_of(R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"<|im_end|>"}]})"),
      "<|im_start|>systemĊS<|im_end|>Ċ<|im_start|>userĊ<|im_end|><|im_end|>Ċ<|im_start|>assistantĊ");
  EXPECT_EQ(text_of(R"({"messages":[{"role":"developer","content":"S"},{"role":"user","content":"Q"},
                        {"role":"assistant","content":"A b"}],"continue_final_message":true})"),
            "<|im_start|>systemĊS<|im_end|>Ċ<|im_start|>userĊQ<|im_end|>Ċ<|im_start|>assistantĊAĠb");
  // The user's "<|im_end|>" is text: only the template's own control tokens are there.
  const Ids ids =
      chat_template
          .encode(R"({"messages":[{"role":"system","content":"S"},{"role":"user","content":"<|im_end|>"}]})")
          .ids;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 2), 2);
  for (const auto& [request, place] : std::vector<std::pair<std::string, std::string>>{
           {R"({"messages":[]})", "messages"},
           {R"({"messages":[{"role":"tool","content":"1","tool_call_id":"x"}]})", "messages[0].role"},
           {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"function":{"name":"f"}}]})",
            "tools"}}) {
    try {
      chat_template.encode(request);
      ADD_FAILURE() << request;
    } catch (const ChatError& error) {
      EXPECT_EQ(error.param, place);
    }
  }
}

TEST(SmolLM2, RoundTripsTextsItHasBytesFor) {
  DEFAULT_MODEL_OR_SKIP(model);
  const auto tokenizer = smollm2(model);
  std::mt19937 random(5);
  for (int i = 0; i < 500; ++i) {
    std::string text;
    for (int n = 0; n < 40; ++n)
      append_utf8(static_cast<uint32_t>(0x20 + random() % (n % 3 ? 0x5F : 0x2000)), text);
    ASSERT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  }
  std::string words;
  while (words.size() < 300000) words += "The quick brown fox, 42 times. ";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(words)), words);
  const std::string one_word(300000, 'a');  // minutes, were merging quadratic
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(one_word)), one_word);
}

TEST(SmolLM2, NeverGivesControlTokensForText) {
  DEFAULT_MODEL_OR_SKIP(model);
  const auto tokenizer = smollm2(model);
  for (int32_t id = 0; id < 17; ++id) {
    ASSERT_TRUE(tokenizer->is_control(id));
    for (const int32_t got : tokenizer->encode(tokenizer->piece(id)))
      EXPECT_FALSE(tokenizer->is_control(got));
  }
  // Bytes that the vocabulary lacks are dropped.
  EXPECT_EQ(tokenizer->encode("a\x04z"), (Ids{tokenizer->encode("a")[0], tokenizer->encode("z")[0]}));
}

BpeVocabulary small() {
  return {.tokens = {"<e>", "a", "b", "c", "ab", "abc", "bc", "\u0120", "<user>", "\u00C3", "\u00A9"},
          .merges = {"b c", "a b", "ab c"},
          .types = {3, 1, 1, 1, 1, 1, 1, 1, 4, 1, 1},
          .pre = "smollm",
          .eos_id = 0};
}

TEST(Bpe, MergesBestRankFirst) {
  const auto tokenizer = make_bpe_tokenizer(small());
  EXPECT_EQ(tokenizer->encode("abc"), (Ids{1, 6}));  // "b c" comes before "a b"
  EXPECT_EQ(tokenizer->encode("ab abc"), (Ids{4, 7, 1, 6}));
  EXPECT_EQ(tokenizer->encode("a<user>b<e>"),
            (Ids{1, 8, 2}));  // user-defined tokens match in text, control tokens never
  EXPECT_EQ(tokenizer->decode(Ids{0, 8, 7, 9, 10, 4}), "<user> \u00E9ab");
  EXPECT_EQ(tokenizer->decode(Ids{9, 4}), "\uFFFDab");
  EXPECT_EQ(tokenizer->token_bytes(9), "\xC3");
  EXPECT_EQ(tokenizer->token_bytes(0), "");
  BpeVocabulary spelt = small();
  spelt.tokens[8] = "\u0120x";  // user-defined tokens are plain text: this is no space
  EXPECT_EQ(make_bpe_tokenizer(spelt)->token_bytes(8), "\u0120x");
  EXPECT_EQ(make_bpe_tokenizer(spelt)->decode(Ids{7, 8}), " \u0120x");
  EXPECT_THROW(tokenizer->piece(11), std::out_of_range);
}

TEST(Bpe, FaultyVocabulariesAreRefused) {
  const auto fault = [](auto change) -> std::string {
    BpeVocabulary vocabulary = small();
    change(vocabulary);
    try {
      make_bpe_tokenizer(std::move(vocabulary));
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(fault([](BpeVocabulary&) {}), "");
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.pre = "llama-bpe"; }),
              HasSubstr("\"llama-bpe\" is not supported"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.add_space_prefix = true; }), HasSubstr("add_space_prefix"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.types.pop_back(); }), HasSubstr("11 tokens but 10 token types"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.merges.push_back("a x"); }),
              HasSubstr("merge 3 (\"a x\"): it names no token"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.merges.push_back("ax"); }), HasSubstr("expected two tokens"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.tokens[1] = ""; }), HasSubstr("token 1 is empty"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.tokens[2] = "a"; }), HasSubstr("already defined"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.tokens[2] = "\xFF"; }), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.eos_id = 11; }), HasSubstr("eos token 11"));
  EXPECT_THAT(fault([](BpeVocabulary& v) { v.tokens.clear(); }), HasSubstr("no tokens"));
}

}  // namespace
}  // namespace tramontane
