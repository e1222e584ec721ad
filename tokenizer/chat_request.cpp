#include "tokenizer/chat_request.h"

namespace tramontane {
namespace {

std::string item(const std::string& place, size_t index) {
  return place + "[" + std::to_string(index) + "]";
}

[[noreturn]] void fail_type(const std::string& place, const char* expected, const PythonJson* got) {
  throw ChatError(place, place + ": expected " + expected + ", got " + (got ? got->type_name() : "nothing"));
}

// The member, or null when it is absent or null.
const PythonJson* given(const PythonJson& object, std::string_view key) {
  const PythonJson* value = object.find(key);
  return value && !value->is_null() ? value : nullptr;
}

const std::string& require_string(const PythonJson& object, const char* key, const std::string& place) {
  const PythonJson* value = object.find(key);
  if (!value || !value->string()) fail_type(place + "." + key, "a string", value);
  return *value->string();
}

std::optional<std::string> optional_string(const PythonJson& object, const char* key,
                                           const std::string& place) {
  return given(object, key) ? std::optional(require_string(object, key, place)) : std::nullopt;
}

void require_object(const PythonJson* value, const std::string& place) {
  if (!value || !value->object()) fail_type(place, "an object", value);
}

void require_function_type(const PythonJson& object, const std::string& place) {
  const PythonJson* type = object.find("type");
  if (type && (!type->string() || *type->string() != "function")) {
    throw ChatError(place + ".type", place + ".type: only \"function\" is supported");
  }
}

const std::string& text_of_part(const PythonJson& part, const std::string& place) {
  require_object(&part, place);
  const std::string& type = require_string(part, "type", place);
  if (type != "text") {
    throw ChatError(place + ".type", place + ".type: content of type \"" + type.substr(0, 40) +
                                         "\" is not supported (only \"text\")");
  }
  return require_string(part, "text", place);
}

void read_content(const PythonJson& message, ChatMessage& out) {
  const std::string place = out.place + ".content";
  const PythonJson* content = message.find("content");
  if (content && content->string()) {
    out.content = *content->string();
    out.has_content = !out.content.empty();
  } else if (content && content->array()) {
    out.has_content = !content->array()->empty();
    for (size_t i = 0; i < content->array()->size(); ++i) {
      const std::string& text = text_of_part((*content->array())[i], item(place, i));
      if (!text.empty()) out.content += (out.content.empty() ? "" : "\n\n") + text;
    }
  } else if ((content && !content->is_null()) || out.role != ChatRole::assistant) {
    fail_type(place, "a string or an array of text parts", content);
  }
}

ChatToolCall parse_tool_call(const PythonJson& call, const std::string& place) {
  require_object(&call, place);
  require_function_type(call, place);
  ChatToolCall out;
  if (call.find("id")) out.id = require_string(call, "id", place);
  const PythonJson* function = call.find("function");
  const std::string function_place = place + ".function";
  require_object(function, function_place);
  out.name = require_string(*function, "name", function_place);
  const PythonJson* arguments = function->find("arguments");
  if (arguments && arguments->object()) {
    out.arguments = dump_python_json(*arguments);
  } else if (arguments && arguments->is_null()) {
    out.arguments = "{}";
  } else {
    out.arguments = require_string(*function, "arguments", function_place);
  }
  return out;
}

void read_assistant(const PythonJson& message, ChatMessage& out) {
  for (const char* key : {"reasoning", "reasoning_content"}) {
    if (given(message, key))
      throw ChatError(out.place + "." + key,
                      out.place + "." + key + ": thinking is not supported by this chat format");
  }
  const PythonJson* calls = given(message, "tool_calls");
  if (!calls) return;
  const std::string place = out.place + ".tool_calls";
  if (!calls->array()) fail_type(place, "an array", calls);
  for (size_t i = 0; i < calls->array()->size(); ++i)
    out.tool_calls.push_back(parse_tool_call((*calls->array())[i], item(place, i)));
}

void read_tool_result(const PythonJson& message, ChatMessage& out) {
  if (!message.find("tool_call_id")) fail_type(out.place + ".tool_call_id", "a string", nullptr);
  out.tool_call_id = optional_string(message, "tool_call_id", out.place);
  out.tool_name = optional_string(message, "name", out.place);
}

ChatRole parse_role(const PythonJson& message, const std::string& place) {
  const std::string& role = require_string(message, "role", place);
  if (role == "system" || role == "developer") return ChatRole::system;
  if (role == "user") return ChatRole::user;
  if (role == "assistant") return ChatRole::assistant;
  if (role == "tool") return ChatRole::tool;
  throw ChatError(place + ".role", "Unknown message role: " + role.substr(0, 40));
}

ChatMessage parse_message(const PythonJson& message, const std::string& place) {
  require_object(&message, place);
  ChatMessage out;
  out.place = place;
  out.role = parse_role(message, place);
  read_content(message, out);
  if (out.role == ChatRole::assistant) read_assistant(message, out);
  if (out.role == ChatRole::tool) read_tool_result(message, out);
  return out;
}

ChatTool parse_tool(const PythonJson& tool, const std::string& place) {
  require_object(&tool, place);
  require_function_type(tool, place);
  const PythonJson* function = tool.find("function");
  const std::string function_place = place + ".function";
  require_object(function, function_place);
  ChatTool out;
  out.name = require_string(*function, "name", function_place);
  out.description = optional_string(*function, "description", function_place).value_or("");
  const PythonJson* parameters = given(*function, "parameters");
  if (parameters) require_object(parameters, function_place + ".parameters");
  out.parameters = parameters ? *parameters : PythonJson{PythonJson::Object{}};
  const PythonJson* strict = given(*function, "strict");
  if (strict && !strict->boolean()) fail_type(function_place + ".strict", "a boolean", strict);
  return out;
}

void read_continue_final_message(const PythonJson& request, ChatRequest& out) {
  const char* kPlace = "continue_final_message";
  const PythonJson* value = given(request, kPlace);
  if (!value) return;
  if (!value->boolean()) fail_type(kPlace, "a boolean", value);
  if (!*value->boolean()) return;
  if (out.messages.empty() || out.messages.back().role != ChatRole::assistant) {
    throw ChatError(kPlace, "continue_final_message needs an assistant message at the end");
  }
  out.messages.back().prefix = true;
}

PythonJson parse_json(std::string_view json) {
  try {
    return parse_python_json(json);
  } catch (const JsonSyntaxError& error) {
    throw ChatError("", std::string("the request is not valid JSON: ") + error.what());
  } catch (const JsonRefusedError& error) {
    throw ChatError("", std::string("the request cannot be read: ") + error.what());
  }
}

}  // namespace

const char* name_of(ChatRole role) {
  constexpr const char* kNames[] = {"system", "user", "assistant", "tool"};
  return kNames[static_cast<int>(role)];
}

ChatRequest parse_chat_request(std::string_view json) {
  const PythonJson request = parse_json(json);
  if (!request.object())
    throw ChatError("", std::string("expected the request to be an object, got ") + request.type_name());
  const PythonJson* messages = request.find("messages");
  if (!messages || !messages->array()) fail_type("messages", "an array", messages);
  ChatRequest out;
  for (size_t i = 0; i < messages->array()->size(); ++i) {
    out.messages.push_back(parse_message((*messages->array())[i], item("messages", i)));
  }
  read_continue_final_message(request, out);
  if (const PythonJson* tools = given(request, "tools")) {
    if (!tools->array()) fail_type("tools", "an array", tools);
    for (size_t i = 0; i < tools->array()->size(); ++i)
      out.tools.push_back(parse_tool((*tools->array())[i], item("tools", i)));
  }
  return out;
}

}  // namespace tramontane
