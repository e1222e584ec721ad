#include "tokenizer/chat_normalization.h"

#include <iterator>

namespace tramontane {
namespace {

std::string joined_system_prompt(const std::vector<ChatMessage>& messages) {
  std::string prompt;
  bool first = true;
  for (const ChatMessage& message : messages) {
    if (message.role != ChatRole::system || !message.has_content) continue;
    prompt += (first ? "" : "\n\n") + message.content;
    first = false;
  }
  return prompt;
}

void merge_into(ChatMessage& earlier, ChatMessage&& later) {
  if (!earlier.content.empty() && !later.content.empty()) earlier.content += "\n\n";
  earlier.content += later.content;
  std::move(later.tool_calls.begin(), later.tool_calls.end(), std::back_inserter(earlier.tool_calls));
  earlier.prefix |= later.prefix;
}

}  // namespace

NormalizedChat normalize_chat(ChatRequest request) {
  NormalizedChat chat{joined_system_prompt(request.messages), {}, std::move(request.tools)};
  bool after_system = true;  // a system message, though removed, keeps its neighbours apart
  for (ChatMessage& message : request.messages) {
    const bool is_system = message.role == ChatRole::system;
    const bool merges = !is_system && !after_system && message.role == chat.messages.back().role &&
                        message.role != ChatRole::tool;
    if (merges)
      merge_into(chat.messages.back(), std::move(message));
    else if (!is_system)
      chat.messages.push_back(std::move(message));
    after_system = is_system;
  }
  if (chat.messages.empty() || chat.messages.front().role != ChatRole::user)
    chat.messages.insert(chat.messages.begin(), ChatMessage{});
  return chat;
}

}  // namespace tramontane
