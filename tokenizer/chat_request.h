// A chat request in OpenAI's form as plain data: types are checked here, what makes sense as a chat is not
// (chat_validation.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_error.h"
#include "tokenizer/python_json.h"

namespace tramontane {

enum class ChatRole { system, user, assistant, tool };
const char* name_of(ChatRole role);

inline constexpr std::string_view kMissingToolCallId = "null";  // mistral-common's placeholder

struct ChatToolCall {
  std::string name;
  std::string arguments;  // JSON text as the client sent it, or any text
  std::string id = std::string(kMissingToolCallId);
};

struct ChatMessage {
  ChatRole role = ChatRole::user;
  std::string place;                     // "messages[3]", for errors
  bool has_content = false;              // a non-empty string or part list, though all parts may be empty
  std::string content;                   // parts joined by "\n\n", empty ones skipped
  std::vector<ChatToolCall> tool_calls;  // assistant
  std::optional<std::string> tool_call_id, tool_name;  // tool
  bool prefix = false;                                 // assistant: the answer is to go on from here
};

struct ChatTool {
  std::string name, description;
  PythonJson parameters;  // an object
};

struct ChatRequest {
  std::vector<ChatMessage> messages;
  std::vector<ChatTool> tools;
};

// Reads `messages`, `tools` and `continue_final_message` of the object in `json`; role "developer" is
// "system". Throws ChatError.
ChatRequest parse_chat_request(std::string_view json);

}  // namespace tramontane
