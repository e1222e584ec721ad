// What mistral-common 1.13.1 refuses in "serving" mode, in its order and words.
#pragma once

#include <string_view>

#include "tokenizer/chat_request.h"

namespace tramontane {

// Throws ChatError. `strict_tool_call_ids`: V3's rule, nine letters and digits.
void validate_chat(const ChatRequest& request, bool strict_tool_call_ids);

bool is_v3_tool_call_id(std::string_view id);

}  // namespace tramontane
