#include "tokenizer/chat_validation.h"

#include <algorithm>

#include "tokenizer/tool_schema.h"

namespace tramontane {
namespace {

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_function_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return is_letter_or_digit(c) || c == '_' || c == '-';
  });
}

void check_function_name(const std::string& name, const std::string& place) {
  if (is_function_name(name)) return;
  throw ChatError(
      place,
      "Function name was " + name +
          " but must be a-z, A-Z, 0-9, or contain underscores and dashes, with a maximum length of 64.");
}

void check_tool_call_id(const std::string& id, const std::string& place) {
  if (is_v3_tool_call_id(id)) return;
  throw ChatError(place, "Tool call id was " + id + " but must be a-z, A-Z, 0-9, with a length of 9.");
}

bool may_follow(ChatRole previous, ChatRole role) {
  switch (previous) {
    case ChatRole::system:
      return role != ChatRole::tool;
    case ChatRole::user:
      return role != ChatRole::tool;
    case ChatRole::assistant:
      return role != ChatRole::system;
    case ChatRole::tool:
      return role != ChatRole::system;
  }
  return false;
}

void check_ends(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) throw ChatError("messages", "Conversation must have at least one message");
  const ChatMessage& last = messages.back();
  if (messages.size() == 1) {
    if (last.role == ChatRole::assistant || last.role == ChatRole::tool) {
      throw ChatError(last.place + ".role", "Conversation must start with a user message or system message");
    }
  } else if (last.role == ChatRole::assistant && !last.prefix) {
    throw ChatError(
        last.place + ".role",
        "Expected last role User or Tool (or Assistant with prefix) for serving but got assistant");
  }
}

void check_order(const std::vector<ChatMessage>& messages) {
  for (size_t i = 1; i < messages.size(); ++i) {
    if (may_follow(messages[i - 1].role, messages[i].role)) continue;
    throw ChatError(messages[i].place + ".role", std::string("Unexpected role '") +
                                                     name_of(messages[i].role) + "' after role '" +
                                                     name_of(messages[i - 1].role) + "'");
  }
}

// Every assistant message's calls are answered before the next one and at the end. The first message is not
// counted, as in the reference.
void check_calls_are_answered(const std::vector<ChatMessage>& messages) {
  const auto fail = [](const std::string& place) {
    throw ChatError(place, "Not the same number of function calls and responses");
  };
  int64_t open_calls = 0;
  for (size_t i = 1; i < messages.size(); ++i) {
    if (messages[i].role == ChatRole::tool) --open_calls;
    if (messages[i].role != ChatRole::assistant) continue;
    if (open_calls != 0) fail(messages[i].place);
    open_calls = static_cast<int64_t>(messages[i].tool_calls.size());
  }
  if (open_calls != 0) fail(messages.back().place);
}

void check_assistant(const ChatMessage& message, bool strict_tool_call_ids) {
  if (message.has_content == !message.tool_calls.empty()) {
    throw ChatError(message.place, "Assistant message must have either content or tool_calls, but not both.");
  }
  for (size_t i = 0; i < message.tool_calls.size(); ++i) {
    const ChatToolCall& call = message.tool_calls[i];
    const std::string place = message.place + ".tool_calls[" + std::to_string(i) + "]";
    if (strict_tool_call_ids) {
      if (call.id == kMissingToolCallId)
        throw ChatError(place + ".id", "Tool call id has to be defined in serving mode.");
      check_tool_call_id(call.id, place + ".id");
    }
    check_function_name(call.name, place + ".function.name");
  }
}

void check_tool_result(const ChatMessage& message, bool strict_tool_call_ids) {
  if (message.tool_name) check_function_name(*message.tool_name, message.place + ".name");
  if (!strict_tool_call_ids) return;
  if (!message.tool_call_id)
    throw ChatError(message.place + ".tool_call_id", "Tool call id has to be defined.");
  check_tool_call_id(*message.tool_call_id, message.place + ".tool_call_id");
}

void check_tool(const ChatTool& tool, const std::string& place) {
  if (const auto fault = find_schema_fault(tool.parameters)) {
    const std::string path = place + ".parameters" + (fault->path.empty() ? "" : "." + fault->path);
    throw ChatError(path, "Invalid tool schema: " + path + ": " + fault->message);
  }
  check_function_name(tool.name, place + ".name");
}

}  // namespace

bool is_v3_tool_call_id(std::string_view id) {
  return id.size() == 9 && std::all_of(id.begin(), id.end(), is_letter_or_digit);
}

void validate_chat(const ChatRequest& request, bool strict_tool_call_ids) {
  check_ends(request.messages);
  check_order(request.messages);
  check_calls_are_answered(request.messages);
  for (const ChatMessage& message : request.messages) {
    if (message.role == ChatRole::assistant) check_assistant(message, strict_tool_call_ids);
    if (message.role == ChatRole::tool) check_tool_result(message, strict_tool_call_ids);
  }
  for (size_t i = 0; i < request.tools.size(); ++i)
    check_tool(request.tools[i], "tools[" + std::to_string(i) + "].function");
}

}  // namespace tramontane
