// The engine's answers as OpenAI's JSON objects: whole responses, stream chunks, usage, errors. Pure; any
// thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/choice_assembler.h"
#include "server/openai_request.h"
#include "server/served_model.h"

namespace tramontane {

using OrderedJson = nlohmann::ordered_json;

struct Usage {
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
};

struct Choice {
  int32_t index = 0;
  AnswerPiece answer;
  FinishReason finish = FinishReason::none;
};

// {"error": {"message", "type", "param", "code"}}; empty param and code are null.
OrderedJson error_object(const RequestError& error);
OrderedJson usage_object(const Usage& usage);
OrderedJson model_object(const ServedModel& model, int32_t max_model_len);
// How a token is shown: its text; "bytes:\xe2\x96" when it is only a part of a character; a control token's
// own spelling.
std::string token_text(const Tokenizer& tokenizer, int32_t id);

// The responses to one request: they share id, time, model and form.
class ResponseBuilder {
 public:
  ResponseBuilder(Endpoint endpoint, const OutputOptions& output, const ServedModel& model,
                  int32_t choices_per_prompt, std::vector<std::vector<int32_t>> prompts);

  OrderedJson whole(const std::vector<Choice>& choices, const Usage& usage) const;

  // Chat only: {"role": "assistant", "content": ""}.
  OrderedJson role_chunk(int32_t index) const;
  // `first`: of this choice.
  OrderedJson piece_chunk(int32_t index, const AnswerPiece& piece, bool first) const;
  OrderedJson finish_chunk(int32_t index, FinishReason finish) const;
  OrderedJson usage_chunk(const Usage& usage) const;

 private:
  bool chat() const { return endpoint_ == Endpoint::chat; }
  OrderedJson head(bool chunk) const;
  OrderedJson chunk(OrderedJson choice) const;
  OrderedJson logprobs(const AnswerPiece& piece) const;
  OrderedJson chat_logprobs(const AnswerPiece& piece) const;
  OrderedJson completion_logprobs(const AnswerPiece& piece) const;
  const std::vector<int32_t>& prompt_of(int32_t index) const;

  const Endpoint endpoint_;
  const OutputOptions output_;
  const ServedModel& model_;
  const int32_t choices_per_prompt_;
  const std::vector<std::vector<int32_t>> prompts_;
  std::string id_;
  int64_t created_;
};

}  // namespace tramontane
