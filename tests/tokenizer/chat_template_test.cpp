// What the golden chats do not say: places of errors, tool-call ids of other servers, requests of any shape.
#include "tokenizer/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/golden.h"
#include "tests/tokenizer/byte_tokenizer.h"
#include "tokenizer/chat_validation.h"

namespace tramontane {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

// Bytes, and the control tokens of V2, V3 and ChatML.
std::shared_ptr<const Tokenizer> chat_tokenizer() {
  ModelBytes model = ModelBytes::minimal();
  for (const char* piece : {"[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                            "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<|im_start|>", "<|im_end|>"}) {
    model.pieces.push_back({piece, 0, PieceType::control});
  }
  return make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize(), "chat"), "chat");
}

// The text between the control tokens, one character for each id.
std::string readable(const EncodedChat& chat) {
  const auto tokenizer = chat_tokenizer();
  std::string text;
  for (const int32_t id : chat.ids)
    text += tokenizer->is_control(id) ? tokenizer->piece(id) : tokenizer->token_bytes(id);
  for (size_t at; (at = text.find("\u2581")) != std::string::npos;) text.replace(at, 3, "_");
  return text;
}

std::string place_of_error(const std::string& request, ChatFormat format = ChatFormat::v3) {
  try {
    return "encoded as " + readable(ChatTemplate(chat_tokenizer(), format).encode(request));
  } catch (const ChatError& error) {
    return error.param;
  }
}

constexpr const char* kToolChat = R"({"messages": [
    {"role": "system", "content": "S"},
    {"role": "user", "content": [{"type": "text", "text": "Q"}]},
    {"role": "assistant", "content": null, "tool_calls": [{"id": "call_abcDEF123", "type": "function",
                                                           "function": {"name": "f", "arguments": {"x": 1.0}}}]},
    {"role": "tool", "tool_call_id": "call_abcDEF123", "name": "f", "content": "7"},
    {"role": "assistant", "content": "seven"},
    {"role": "user", "content": "thanks"}],
  "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": true}}],
  "continue_final_message": false})";

TEST(ChatTemplate, NamesThePlaceOfTheError) {
  const std::pair<const char*, const char*> cases[] = {
      {"not json", ""},
      {"[]", ""},
      {"{}", "messages"},
      {R"({"messages":null})", "messages"},
      {R"({"messages":[]})", "messages"},
      {R"({"messages":[1]})", "messages[0]"},
      {R"({"messages":[{"content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"wizard","content":"x"}]})", "messages[0].role"},
      {R"({"messages":[{"role":"user"}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":3}]})", "messages[0].content"},
      {R"({"messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
       "messages[0].content[0].type"},
      {R"({"messages":[{"role":"user","content":[{"type":"text"}]}]})", "messages[0].content[0].text"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})",
       "messages[1].role"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"tool","content":"y","tool_call_id":"123456789"}]})",
       "messages[1].role"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant"},{"role":"user","content":"x"}]})",
       "messages[1]"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":[{"function":{"name":"f"}}]}]})",
       "messages[1].tool_calls[0].function.arguments"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","tool_calls":{}}]})",
       "messages[1].tool_calls"},
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y","reasoning":"z"},{"role":"user","content":"x"}]})",
       "messages[1].reasoning"},
      {R"({"messages":[{"role":"user","content":"x"}],"continue_final_message":true})",
       "continue_final_message"},
      {R"({"messages":[{"role":"user","content":"x"}],"continue_final_message":"yes"})",
       "continue_final_message"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":{}})", "tools"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"web"}]})", "tools[0].type"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]})", "tools[0].function"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"function":{"name":"a b"}}]})",
       "tools[0].function.name"},
      {R"({"messages":[{"role":"user","content":"x"}],"tools":[{"function":{"name":"f","parameters":{"properties":{"p":{"type":"x"}}}}}]})",
       "tools[0].function.parameters.properties.p.type"},
      {R"({"messages":[{"role":"user","content":"\ud800"}]})", ""},
  };
  for (const auto& [request, place] : cases) EXPECT_EQ(place_of_error(request), place) << request;
  EXPECT_EQ(place_of_error(kToolChat), "messages[2].tool_calls[0].id");
  EXPECT_EQ(place_of_error(kToolChat, ChatFormat::v1), "messages[2].tool_calls");
  EXPECT_EQ(place_of_error(kToolChat, ChatFormat::chatml), "tools");
}

TEST(ChatTemplate, MapsOtherServersToolCallIds) {
  const std::string mapped = v3_tool_call_id("call_abcDEF123");
  EXPECT_TRUE(is_v3_tool_call_id(mapped)) << mapped;
  EXPECT_NE(mapped, v3_tool_call_id("call_abcDEF124"));
  EXPECT_EQ(v3_tool_call_id("Abcdefgh9"), "Abcdefgh9");
  EXPECT_TRUE(is_v3_tool_call_id(v3_tool_call_id("")));
  const std::string text = readable(ChatTemplate(chat_tokenizer(), ChatFormat::v3).encode(kToolChat, true));
  EXPECT_EQ(text,
            "<s>[INST]_Q[/INST][TOOL_CALLS]_[{\"name\":_\"f\",_\"arguments\":_{\"x\":_1.0},_\"id\":_\"" +
                mapped + "\"}]</s>[TOOL_RESULTS]_{\"content\":_7,_\"call_id\":_\"" + mapped +
                "\"}[/TOOL_RESULTS]_seven</"
                "s>[AVAILABLE_TOOLS]_[{\"type\":_\"function\",_\"function\":_{\"name\":_\"f\","
                "_\"description\":_\"d\",_\"parameters\":_{\"type\":_\"object\"}}}][/"
                "AVAILABLE_TOOLS][INST]_S\n\nthanks[/INST]");
}

TEST(ChatTemplate, EmptyPartsLeaveNoGap) {
  const std::string parts = R"({"messages":[{"role":"user","content":[{"type":"text","text":"a"},
      {"type":"text","text":""},{"type":"text","text":"b"},{"type":"text","text":""}]}]})";
  EXPECT_EQ(readable(ChatTemplate(chat_tokenizer(), ChatFormat::v3).encode(parts)),
            "<s>[INST]_a\n\nb[/INST]");
}

TEST(ChatTemplate, NeighboursThatMergeIntoNonsenseAreRefused) {
  const std::string both = R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"},
      {"role":"assistant","tool_calls":[{"id":"123456789","function":{"name":"f","arguments":"{}"}}]},
      {"role":"tool","content":"1","tool_call_id":"123456789"}]})";
  EXPECT_EQ(place_of_error(both), "messages[1]");
  const std::string empty_parts = R"({"messages":[{"role":"user","content":"x"},
      {"role":"assistant","content":[{"type":"text","text":""}]},{"role":"user","content":"y"}]})";
  EXPECT_EQ(place_of_error(empty_parts), "messages[1]");
}

TEST(ChatTemplate, ToolTextsThatCannotBeReadAreRefused) {
  const std::string deep = std::string(5000, '[');
  const Json request = {
      {"messages",
       {{{"role", "user"}, {"content", "x"}},
        {{"role", "assistant"},
         {"tool_calls", {{{"id", "123456789"}, {"function", {{"name", "f"}, {"arguments", deep}}}}}}},
        {{"role", "tool"}, {"content", "1"}, {"tool_call_id", "123456789"}}}}};
  EXPECT_EQ(place_of_error(request.dump()), "messages[1].tool_calls[0].function.arguments");
}

// Replaces every node of `json` in turn by other values, and calls `visit` with each result.
template <class Visit>
void with_each_node_replaced(Json& root, Json& node, const Visit& visit) {
  const Json kept = node;
  for (const char* other :
       {"null", "true", "1", "-1.5", "\"\"", "\"x\"", "[]", "{}", "[1]", "{\"type\": 1}", "[{}]", "[[]]"}) {
    node = Json::parse(other);
    visit(root.dump());
  }
  node = kept;
  if (!node.is_structured()) return;
  for (Json& child : node) with_each_node_replaced(root, child, visit);
}

TEST(ChatTemplate, RequestsOfAnyShapeAreEncodedOrRefused) {
  for (const ChatFormat format : {ChatFormat::v1, ChatFormat::v2, ChatFormat::v3, ChatFormat::chatml}) {
    const ChatTemplate chat_template(chat_tokenizer(), format);
    size_t encoded = 0, refused = 0;
    Json request = Json::parse(kToolChat);
    with_each_node_replaced(request, request, [&](const std::string& text) {
      try {
        EXPECT_FALSE(chat_template.encode(text, true).ids.empty() && format != ChatFormat::chatml);
        ++encoded;
      } catch (const ChatError& error) {
        EXPECT_STRNE(error.what(), "");
        ++refused;
      }
    });
    EXPECT_GT(refused, 300u);
    EXPECT_TRUE(encoded > 30 || format == ChatFormat::v1 || format == ChatFormat::chatml) << encoded;
  }
}

TEST(ChatTemplate, NeedsTheFormatsControlTokens) {
  const auto bytes_only = byte_tokenizer();
  EXPECT_NO_THROW(ChatTemplate(bytes_only, ChatFormat::v1));
  for (const ChatFormat format : {ChatFormat::v2, ChatFormat::v3, ChatFormat::chatml}) {
    EXPECT_THROW(ChatTemplate(bytes_only, format), std::runtime_error) << name_of(format);
  }
}

TEST(ChatTemplate, FormatsAreNamedAndGuessed) {
  for (const char* name : {"v1", "v2", "v3", "chatml"}) EXPECT_EQ(name_of(*parse_chat_format(name)), name);
  EXPECT_EQ(parse_chat_format("v7"), std::nullopt);
  EXPECT_EQ(guess_chat_format(*chat_tokenizer()), ChatFormat::chatml);
  EXPECT_EQ(guess_chat_format(*byte_tokenizer()), std::nullopt);
  GOLDEN_OR_SKIP(v1, "tokenizers/tokenizer.model.v1");
  EXPECT_EQ(guess_chat_format(*load_sentencepiece_tokenizer(v1)), ChatFormat::v1);
  GOLDEN_OR_SKIP(v3, "tokenizers/mistral_instruct_tokenizer_240323.model.v3");
  EXPECT_EQ(guess_chat_format(*load_sentencepiece_tokenizer(v3)), ChatFormat::v3);
}

}  // namespace
}  // namespace tramontane
