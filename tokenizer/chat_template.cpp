#include "tokenizer/chat_template.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tokenizer/chat_normalization.h"
#include "tokenizer/chat_validation.h"

namespace tramontane {
namespace {

constexpr std::array<std::pair<ChatFormat, std::string_view>, 4> kFormats = {
    {{ChatFormat::v1, "v1"}, {ChatFormat::v2, "v2"}, {ChatFormat::v3, "v3"}, {ChatFormat::chatml, "chatml"}}};

std::vector<std::string_view> control_tokens_of(ChatFormat format) {
  if (format == ChatFormat::v1) return {};
  if (format == ChatFormat::chatml) return {"<|im_start|>", "<|im_end|>"};
  return {"[INST]",         "[/INST]",        "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
          "[TOOL_RESULTS]", "[/TOOL_RESULTS]"};
}

// Collects ids. Text and control tokens come in by different doors, so no text can become a control token.
class IdWriter {
 public:
  explicit IdWriter(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

  void text(std::string_view text) {
    const std::vector<int32_t> ids = tokenizer_.encode(text);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }
  void control(std::string_view piece) { ids_.push_back(tokenizer_.control_id(piece).value()); }
  void bos() { ids_.push_back(tokenizer_.bos_id()); }
  void eos() { ids_.push_back(tokenizer_.eos_id()); }

  EncodedChat take() {
    EncodedChat chat{std::move(ids_), {}};
    for (const int32_t id : chat.ids) chat.text += tokenizer_.piece(id);
    return chat;
  }

 private:
  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
};

// Tool arguments and results: the JSON value that the text is, {} for no text, and a JSON string for text
// that is no JSON.
PythonJson json_or_text(const std::string& text, const std::string& place) {
  if (text.empty()) return {PythonJson::Object{}};
  try {
    return parse_python_json(text);
  } catch (const JsonSyntaxError&) {
    return {text};
  } catch (const JsonRefusedError& error) {
    throw ChatError(place, place + ": " + error.what());
  }
}

PythonJson text_or_null(const std::optional<std::string>& text) {
  return text ? PythonJson{*text} : PythonJson{};
}

std::string tools_json(const std::vector<ChatTool>& tools) {
  PythonJson::Array list;
  for (const ChatTool& tool : tools) {
    PythonJson function{PythonJson::Object{
        {"name", {tool.name}}, {"description", {tool.description}}, {"parameters", tool.parameters}}};
    list.push_back(
        {PythonJson::Object{{"type", {std::string("function")}}, {"function", std::move(function)}}});
  }
  return dump_python_json({std::move(list)});
}

// V1, V2, V3. Which of them differ in what is said at each point.
class MistralEncoder {
 public:
  MistralEncoder(const Tokenizer& tokenizer, ChatFormat format, const NormalizedChat& chat)
      : out_(tokenizer), format_(format), chat_(chat) {
    for (size_t i = 0; i < chat.messages.size(); ++i) {
      if (chat.messages[i].role == ChatRole::user) last_user_ = i;
    }
  }

  EncodedChat encode() {
    if (format_ == ChatFormat::v2) check_single_results();
    out_.bos();
    for (size_t i = 0; i < chat_.messages.size(); ++i) {
      const ChatMessage& message = chat_.messages[i];
      if (message.role == ChatRole::user)
        user(message, i);
      else if (message.role == ChatRole::assistant)
        assistant(message, i);
      else
        tool_result(message, i);
    }
    return out_.take();
  }

 private:
  // V2 has room for one tool result in an assistant turn; earlier turns' results are left out anyway.
  void check_single_results() const {
    for (size_t i = last_user_ + 1; i + 1 < chat_.messages.size(); ++i) {
      const bool answers_calls =
          chat_.messages[i - 1].role == ChatRole::assistant && !chat_.messages[i - 1].tool_calls.empty();
      if (answers_calls && chat_.messages[i].role == ChatRole::tool &&
          chat_.messages[i + 1].role == ChatRole::tool) {
        throw ChatError(chat_.messages[i + 1].place,
                        "Tokenizer v2 does not support multiple tool results for one assistant turn.");
      }
    }
  }

  void user(const ChatMessage& message, size_t index) {
    const size_t system_at =
        format_ == ChatFormat::v1 ? 0 : last_user_;  // the first message is a user message
    const bool with_system = index == system_at && !chat_.system_prompt.empty();
    const std::string content =
        with_system ? chat_.system_prompt + "\n\n" + message.content : message.content;
    if (format_ == ChatFormat::v1) return out_.text("[INST] " + content + " [/INST]");
    if (index == last_user_ && !chat_.tools.empty()) {
      out_.control("[AVAILABLE_TOOLS]");
      out_.text(tools_json(chat_.tools));
      out_.control("[/AVAILABLE_TOOLS]");
    }
    out_.control("[INST]");
    out_.text(content);
    out_.control("[/INST]");
  }

  void assistant(const ChatMessage& message, size_t index) {
    const bool calls = !message.tool_calls.empty();
    if (calls) refuse_tools_in_v1(message.place + ".tool_calls");
    if (calls ==
        !message.content.empty()) {  // possible by merging neighbours, or with content of empty parts
      throw ChatError(message.place,
                      calls ? "Cannot have tool calls and content defined in the same assistant message"
                            : "Invalid assistant message: it has neither text nor tool calls");
    }
    if (calls && is_left_out(index)) return;
    if (calls) {
      out_.control("[TOOL_CALLS]");
      out_.text(tool_calls_json(message));
    } else if (format_ == ChatFormat::v1) {
      out_.text(message.content);
    } else {
      out_.text(std::string_view(message.content).substr(0, message.content.find_last_not_of(' ') + 1));
    }
    if (!message.prefix) out_.eos();
  }

  void tool_result(const ChatMessage& message, size_t index) {
    refuse_tools_in_v1(message.place + ".role");
    if (is_left_out(index)) return;
    PythonJson content = json_or_text(message.content, message.place + ".content");
    PythonJson::Object result;
    if (format_ == ChatFormat::v2) {
      result = {{"name", text_or_null(message.tool_name)}, {"content", std::move(content)}};
    } else {
      result = {{"content", std::move(content)}, {"call_id", text_or_null(message.tool_call_id)}};
    }
    PythonJson json{std::move(result)};
    if (format_ == ChatFormat::v2) json = {PythonJson::Array{std::move(json)}};
    out_.control("[TOOL_RESULTS]");
    out_.text(dump_python_json(json));
    out_.control("[/TOOL_RESULTS]");
  }

  std::string tool_calls_json(const ChatMessage& message) const {
    PythonJson::Array list;
    for (size_t i = 0; i < message.tool_calls.size(); ++i) {
      const ChatToolCall& call = message.tool_calls[i];
      const std::string place = message.place + ".tool_calls[" + std::to_string(i) + "].function.arguments";
      PythonJson::Object object{{"name", {call.name}}, {"arguments", json_or_text(call.arguments, place)}};
      if (format_ == ChatFormat::v3) object.push_back({"id", {call.id}});
      list.push_back({std::move(object)});
    }
    return dump_python_json({std::move(list)});
  }

  // V2 forgets tool calls and results before the last user message.
  bool is_left_out(size_t index) const { return format_ == ChatFormat::v2 && index < last_user_; }

  void refuse_tools_in_v1(const std::string& place) const {
    if (format_ == ChatFormat::v1) throw ChatError(place, "Tools not implemented for tokenizer V1");
  }

  IdWriter out_;
  const ChatFormat format_;
  const NormalizedChat& chat_;
  size_t last_user_ = 0;
};

void refuse_in_chatml(const ChatRequest& request) {
  const auto refuse = [](const std::string& place) {
    throw ChatError(place, "tools are not supported by the chatml chat format");
  };
  if (request.messages.empty()) throw ChatError("messages", "Conversation must have at least one message");
  if (!request.tools.empty()) refuse("tools");
  for (const ChatMessage& message : request.messages) {
    if (message.role == ChatRole::tool) refuse(message.place + ".role");
    if (!message.tool_calls.empty()) refuse(message.place + ".tool_calls");
  }
}

// SmolLM2's own template (FORMATS 1d); every message is one segment between control tokens.
EncodedChat encode_chatml(const Tokenizer& tokenizer, const ChatRequest& request) {
  refuse_in_chatml(request);
  IdWriter out(tokenizer);
  const auto begin = [&](const std::string& text) {
    out.control("<|im_start|>");
    out.text(text);
  };
  const auto end = [&] {
    out.control("<|im_end|>");
    out.text("\n");
  };
  if (request.messages.front().role != ChatRole::system) {
    begin("system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face");
    end();
  }
  for (const ChatMessage& message : request.messages) {
    begin(std::string(name_of(message.role)) + "\n" + message.content);
    if (!message.prefix) end();
  }
  if (!request.messages.back().prefix) begin("assistant\n");
  return out.take();
}

void map_tool_call_ids_for_v3(ChatRequest& request) {
  for (ChatMessage& message : request.messages) {
    if (message.tool_call_id) message.tool_call_id = v3_tool_call_id(*message.tool_call_id);
    for (ChatToolCall& call : message.tool_calls) {
      if (call.id != kMissingToolCallId) call.id = v3_tool_call_id(call.id);
    }
  }
}

}  // namespace

std::optional<ChatFormat> parse_chat_format(std::string_view name) {
  for (const auto& [format, format_name] : kFormats) {
    if (format_name == name) return format;
  }
  return std::nullopt;
}

std::string_view name_of(ChatFormat format) {
  return kFormats[static_cast<size_t>(format)].second;
}

std::optional<ChatFormat> guess_chat_format(const Tokenizer& tokenizer) {
  if (tokenizer.control_id("<|im_start|>")) return ChatFormat::chatml;
  if (tokenizer.vocab_size() == 32000) return ChatFormat::v1;
  if (tokenizer.vocab_size() == 32768) return ChatFormat::v3;
  return std::nullopt;
}

std::string v3_tool_call_id(std::string_view id) {
  if (is_v3_tool_call_id(id)) return std::string(id);
  constexpr std::string_view kAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  uint64_t hash =
      0xCBF29CE484222325u;  // FNV-1a; 62^9 is 53 bits, so ids of one conversation practically never meet
  for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  hash ^= hash >> 29;
  std::string mapped;
  for (int i = 0; i < 9; ++i, hash /= kAlphabet.size()) mapped += kAlphabet[hash % kAlphabet.size()];
  return mapped;
}

ChatTemplate::ChatTemplate(std::shared_ptr<const Tokenizer> tokenizer, ChatFormat format)
    : tokenizer_(std::move(tokenizer)), format_(format) {
  const auto lacks = [&](std::string_view what) {
    throw std::runtime_error("chat format " + std::string(name_of(format)) + " needs the control token " +
                             std::string(what) + ", which this vocabulary of " +
                             std::to_string(tokenizer_->vocab_size()) + " lacks");
  };
  for (const std::string_view token : control_tokens_of(format)) {
    if (!tokenizer_->control_id(token)) lacks(token);
  }
  if (format == ChatFormat::chatml) return;
  if (tokenizer_->bos_id() < 0) lacks("BOS");
  if (tokenizer_->eos_id() < 0) lacks("EOS");
}

EncodedChat ChatTemplate::encode(std::string_view request_json, bool map_tool_call_ids) const {
  ChatRequest request = parse_chat_request(request_json);
  if (format_ == ChatFormat::chatml) return encode_chatml(*tokenizer_, request);
  if (map_tool_call_ids && format_ == ChatFormat::v3) map_tool_call_ids_for_v3(request);
  validate_chat(request, format_ == ChatFormat::v3);
  return MistralEncoder(*tokenizer_, format_, normalize_chat(std::move(request))).encode();
}

}  // namespace tramontane
