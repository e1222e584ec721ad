#include "server/choice_assembler.h"

#include <algorithm>

namespace tramontane {
namespace {

int64_t count_characters(const std::string& utf8) {
  return std::count_if(utf8.begin(), utf8.end(),
                       [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
}

std::vector<TokenLogprob> top_of(const TokenEvent& event) {
  if (event.n_top == 0) return {};
  return std::vector<TokenLogprob>(event.top, event.top + event.n_top);
}

}  // namespace

ChoiceAssembler::ChoiceAssembler(const Tokenizer& tokenizer, const OutputOptions& output,
                                 std::span<const int32_t> prompt, bool continues_prompt)
    : decoder_(tokenizer, output.stop), details_(output.logprobs || output.return_token_ids) {
  if (output.echo) {
    echo(prompt);
  } else if (continues_prompt) {
    decoder_.prime(prompt);
  }
}

void ChoiceAssembler::echo(std::span<const int32_t> prompt) {
  for (const int32_t& id : prompt) {
    if (details_) piece_.tokens.push_back({id, std::nullopt, {}, characters_});
    add_text(decoder_.prime(std::span(&id, 1)));
  }
  n_echoed_ = 1;
}

void ChoiceAssembler::accept(const TokenEvent& event) {
  if (finished()) return;
  switch (event.kind) {
    case TokenEvent::Kind::prompt_logprob:
      if (n_echoed_ < piece_.tokens.size()) {
        piece_.tokens[n_echoed_].logprob = event.logprob;
        piece_.tokens[n_echoed_].top = top_of(event);
        ++n_echoed_;
      }
      break;
    case TokenEvent::Kind::token:
      ++n_tokens_;
      if (details_) piece_.tokens.push_back({event.token, event.logprob, top_of(event), characters_});
      add_text(decoder_.append(event.token));
      if (decoder_.stopped()) finish_ = FinishReason::stop;
      break;
    case TokenEvent::Kind::finished:
      add_text(decoder_.finish());
      finish_ = decoder_.stopped() ? FinishReason::stop : event.finish;
      break;
  }
}

void ChoiceAssembler::add_text(const std::string& text) {
  piece_.text += text;
  characters_ += count_characters(text);
}

AnswerPiece ChoiceAssembler::take() {
  n_echoed_ = 0;
  AnswerPiece taken;
  std::swap(taken, piece_);
  return taken;
}

}  // namespace tramontane
