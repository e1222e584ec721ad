// mistral-common's normalisation: system messages become one system prompt, neighbours of the same role
// become one message.
#pragma once

#include "tokenizer/chat_request.h"

namespace tramontane {

struct NormalizedChat {
  std::string system_prompt;          // empty: none
  std::vector<ChatMessage> messages;  // user, assistant and tool; the first is a user message
  std::vector<ChatTool> tools;
};

NormalizedChat normalize_chat(ChatRequest request);

}  // namespace tramontane
