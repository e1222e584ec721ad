#include "server/openai_response.h"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "server/request_id.h"

namespace tramontane {
namespace {

OrderedJson null_if_empty(const std::string& text) {
  return text.empty() ? OrderedJson(nullptr) : OrderedJson(text);
}

// JSON has no infinity; a token that was ruled out has the value that other servers use for it.
double json_logprob(float logprob) {
  return std::max(static_cast<double>(logprob), -9999.0);
}

OrderedJson finish_name(FinishReason finish) {
  if (finish == FinishReason::none) return nullptr;
  // A deadline is a limit on the answer's length, in time.
  return finish == FinishReason::length || finish == FinishReason::deadline ? "length" : "stop";
}

// RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF.
bool is_utf8(const std::string& bytes) {
  for (size_t i = 0; i < bytes.size();) {
    const auto at = [&](size_t k) { return k < bytes.size() ? static_cast<unsigned char>(bytes[k]) : 0u; };
    const unsigned lead = at(i);
    const int more = lead < 0x80                   ? 0
                     : lead >= 0xC2 && lead < 0xE0 ? 1
                     : lead >= 0xE0 && lead < 0xF0 ? 2
                     : lead >= 0xF0 && lead < 0xF5 ? 3
                                                   : -1;
    if (more < 0) return false;
    for (int k = 1; k <= more; ++k) {
      if ((at(i + k) & 0xC0) != 0x80) return false;
    }
    const unsigned second = at(i + 1);
    if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
        (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F))
      return false;
    i += static_cast<size_t>(more) + 1;
  }
  return true;
}

OrderedJson bytes_of(const std::string& bytes) {
  if (bytes.empty()) return nullptr;  // a control token stands for none
  OrderedJson list = OrderedJson::array();
  for (const char byte : bytes) list.push_back(static_cast<unsigned char>(byte));
  return list;
}

OrderedJson ids_of(const AnswerPiece& piece) {
  OrderedJson ids = OrderedJson::array();
  for (const TokenDetail& token : piece.tokens) ids.push_back(token.id);
  return ids;
}

int64_t unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

OrderedJson error_object(const RequestError& error) {
  return {{"error",
           {{"message", error.what()},
            {"type", error.type},
            {"param", null_if_empty(error.param)},
            {"code", null_if_empty(error.code)}}}};
}

OrderedJson usage_object(const Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}}};
}

OrderedJson model_object(const ServedModel& model, int32_t max_model_len) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "tramontane"},
          {"max_model_len", max_model_len}};
}

std::string token_text(const Tokenizer& tokenizer, int32_t id) {
  const std::string bytes = tokenizer.token_bytes(id);
  if (bytes.empty()) return tokenizer.piece(id);
  if (is_utf8(bytes)) return bytes;
  std::string text = "bytes:";
  for (const char byte : bytes) {
    char hex[8];
    std::snprintf(hex, sizeof hex, "\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
    text += hex;
  }
  return text;
}

ResponseBuilder::ResponseBuilder(Endpoint endpoint, const OutputOptions& output, const ServedModel& model,
                                 int32_t choices_per_prompt, std::vector<std::vector<int32_t>> prompts)
    : endpoint_(endpoint),
      output_(output),
      model_(model),
      choices_per_prompt_(choices_per_prompt),
      prompts_(std::move(prompts)),
      id_((endpoint == Endpoint::chat ? "chatcmpl-" : "cmpl-") + random_hex()),
      created_(unix_seconds()) {}

const std::vector<int32_t>& ResponseBuilder::prompt_of(int32_t index) const {
  return prompts_[static_cast<size_t>(index / choices_per_prompt_)];
}

OrderedJson ResponseBuilder::head(bool chunk) const {
  const char* object = !chat() ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion";
  return {{"id", id_},
          {"object", object},
          {"created", created_},
          {"model", model_.id},
          {"system_fingerprint", model_.system_fingerprint}};
}

OrderedJson ResponseBuilder::chat_logprobs(const AnswerPiece& piece) const {
  const Tokenizer& tokenizer = *model_.tokenizer;
  const auto entry = [&](int32_t id, float logprob) {
    return OrderedJson{{"token", token_text(tokenizer, id)},
                       {"logprob", json_logprob(logprob)},
                       {"bytes", bytes_of(tokenizer.token_bytes(id))}};
  };
  OrderedJson content = OrderedJson::array();
  for (const TokenDetail& token : piece.tokens) {
    OrderedJson one = entry(token.id, token.logprob.value_or(0.0f));
    one["top_logprobs"] = OrderedJson::array();
    for (const TokenLogprob& top : token.top) one["top_logprobs"].push_back(entry(top.token, top.logprob));
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// The likeliest tokens and, when it is not one of them, the token itself, as OpenAI's completions give them.
OrderedJson ResponseBuilder::completion_logprobs(const AnswerPiece& piece) const {
  const Tokenizer& tokenizer = *model_.tokenizer;
  OrderedJson tokens = OrderedJson::array(), logprobs = OrderedJson::array(), tops = OrderedJson::array(),
              offsets = OrderedJson::array();
  for (const TokenDetail& token : piece.tokens) {
    const std::string text = token_text(tokenizer, token.id);
    tokens.push_back(text);
    offsets.push_back(token.text_offset);
    logprobs.push_back(token.logprob ? OrderedJson(json_logprob(*token.logprob)) : OrderedJson(nullptr));
    OrderedJson top = token.logprob ? OrderedJson::object() : OrderedJson(nullptr);
    for (const TokenLogprob& one : token.top) {
      const std::string key = token_text(tokenizer, one.token);
      if (!top.contains(key))
        top[key] = json_logprob(one.logprob);  // a byte and a piece may read the same: the likelier stays
    }
    if (token.logprob && !top.contains(text)) top[text] = json_logprob(*token.logprob);
    tops.push_back(std::move(top));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

OrderedJson ResponseBuilder::logprobs(const AnswerPiece& piece) const {
  if (!output_.logprobs) return nullptr;
  return chat() ? chat_logprobs(piece) : completion_logprobs(piece);
}

OrderedJson ResponseBuilder::whole(const std::vector<Choice>& choices, const Usage& usage) const {
  OrderedJson response = head(false);
  OrderedJson list = OrderedJson::array();
  for (const Choice& choice : choices) {
    OrderedJson one = {{"index", choice.index}};
    if (chat()) {
      one["message"] = {{"role", "assistant"}, {"content", choice.answer.text}, {"refusal", nullptr}};
    } else {
      one["text"] = choice.answer.text;
    }
    one["logprobs"] = logprobs(choice.answer);
    one["finish_reason"] = finish_name(choice.finish);
    if (output_.return_token_ids) {
      if (!chat()) one["prompt_token_ids"] = prompt_of(choice.index);
      one["token_ids"] = ids_of(choice.answer);
    }
    list.push_back(std::move(one));
  }
  response["choices"] = std::move(list);
  response["usage"] = usage_object(usage);
  if (output_.return_token_ids && chat()) response["prompt_token_ids"] = prompt_of(0);
  return response;
}

OrderedJson ResponseBuilder::chunk(OrderedJson choice) const {
  OrderedJson response = head(true);
  response["choices"] = OrderedJson::array({std::move(choice)});
  if (output_.include_usage) response["usage"] = nullptr;
  return response;
}

OrderedJson ResponseBuilder::role_chunk(int32_t index) const {
  OrderedJson response = chunk({{"index", index},
                                {"delta", {{"role", "assistant"}, {"content", ""}}},
                                {"logprobs", nullptr},
                                {"finish_reason", nullptr}});
  if (output_.return_token_ids) response["prompt_token_ids"] = prompt_of(index);
  return response;
}

OrderedJson ResponseBuilder::piece_chunk(int32_t index, const AnswerPiece& piece, bool first) const {
  OrderedJson choice = {{"index", index}};
  if (chat()) {
    choice["delta"] = {{"content", piece.text}};
  } else {
    choice["text"] = piece.text;
  }
  choice["logprobs"] = logprobs(piece);
  choice["finish_reason"] = nullptr;
  if (output_.return_token_ids) {
    if (!chat() && first) choice["prompt_token_ids"] = prompt_of(index);
    choice["token_ids"] = ids_of(piece);
  }
  return chunk(std::move(choice));
}

OrderedJson ResponseBuilder::finish_chunk(int32_t index, FinishReason finish) const {
  OrderedJson choice = {{"index", index}};
  if (chat()) {
    choice["delta"] = OrderedJson::object();
  } else {
    choice["text"] = "";
  }
  choice["logprobs"] = nullptr;
  choice["finish_reason"] = finish_name(finish);
  return chunk(std::move(choice));
}

OrderedJson ResponseBuilder::usage_chunk(const Usage& usage) const {
  OrderedJson response = head(true);
  response["choices"] = OrderedJson::array();
  response["usage"] = usage_object(usage);
  return response;
}

}  // namespace tramontane
