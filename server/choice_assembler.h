// ChoiceAssembler: one sequence's events to the text and token details of one choice. Streamed and whole
// answers are both made from what take() gives, so they are equal. One HTTP thread; knows no JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/openai_request.h"
#include "tokenizer/stream_decoder.h"

namespace tramontane {

struct TokenDetail {
  int32_t id = -1;
  std::optional<float> logprob;   // nothing for a prompt's first token
  std::vector<TokenLogprob> top;  // likeliest first
  int64_t text_offset = 0;        // characters of the choice's text before this token
};

struct AnswerPiece {
  std::string text;                 // whole characters
  std::vector<TokenDetail> tokens;  // when logprobs or token ids are asked for; all that were decoded so far,
                                    // also those whose text is held back
};

class ChoiceAssembler {
 public:
  // `prompt` is what the text goes on from when `continues_prompt` (a completion, a continued message): the
  // first piece keeps its space.
  ChoiceAssembler(const Tokenizer& tokenizer, const OutputOptions& output, std::span<const int32_t> prompt,
                  bool continues_prompt);

  void accept(const TokenEvent& event);
  // Whether take() has text. Tokens alone wait for the text they belong to, or for the end.
  bool has_text() const { return !piece_.text.empty(); }
  bool has_tokens() const { return !piece_.tokens.empty(); }
  AnswerPiece take();

  bool finished() const { return finish_ != FinishReason::none; }
  FinishReason finish() const { return finish_; }
  // A stop string ended it: the engine does not know and is to be told.
  bool stopped_by_string() const { return decoder_.stopped(); }
  int32_t n_tokens() const { return n_tokens_; }

 private:
  void echo(std::span<const int32_t> prompt);
  void add_text(const std::string& text);

  StreamDecoder decoder_;
  const bool details_;
  AnswerPiece piece_;
  size_t n_echoed_ = 0;  // prompt tokens in piece_ that have their log probability
  int64_t characters_ = 0;
  int32_t n_tokens_ = 0;
  FinishReason finish_ = FinishReason::none;
};

}  // namespace tramontane
