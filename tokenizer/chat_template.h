// Chat requests to token ids, exactly as mistral-common 1.13.1 (V1, V2, V3, "serving" mode) and SmolLM2's
// ChatML template do. Immutable, shared by all threads. User text never becomes a control token. The steps
// are chat_request (reading), chat_validation, chat_normalization and, here, the encoding.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_error.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

enum class ChatFormat { v1, v2, v3, chatml };
std::optional<ChatFormat> parse_chat_format(std::string_view name);  // "v1", "v2", "v3", "chatml"
std::string_view name_of(ChatFormat format);
// A vocabulary with the control token <|im_start|>: ChatML; one of 32000: V1; of 32768: V3. Nothing: no
// guess.
std::optional<ChatFormat> guess_chat_format(const Tokenizer& tokenizer);

struct EncodedChat {
  std::vector<int32_t> ids;
  std::string text;  // the pieces joined, for reading: "<s>[INST]▁Hello[/INST]"
};

class ChatTemplate {
 public:
  // Throws std::runtime_error when the vocabulary lacks the format's control tokens. The tokenizer is kept.
  ChatTemplate(std::shared_ptr<const Tokenizer> tokenizer, ChatFormat format);

  ChatFormat format() const { return format_; }
  // `request_json`: an object in OpenAI's form; only `messages`, `tools` and `continue_final_message` are
  // read, by Python's JSON rules (key order and number spelling are kept: FORMATS, "Python number printing
  // matters"). Throws ChatError. Tool-call ids that V3 refuses (OpenAI's "call_…") are mapped to stable
  // 9-character ones when `map_tool_call_ids` (v3_tool_call_id). ChatML takes texts only: tools, tool calls
  // and tool results are refused by name.
  EncodedChat encode(std::string_view request_json, bool map_tool_call_ids = false) const;

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  ChatFormat format_;
};

// The id itself where V3 takes it (nine letters and digits), else nine letters and digits that depend on the
// id alone, so that a call and its result still agree.
std::string v3_tool_call_id(std::string_view id);

}  // namespace tramontane
