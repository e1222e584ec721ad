#include "server/choice_assembler.h"

#include <gtest/gtest.h>

#include "tests/server/fake_tokenizer.h"

namespace tramontane {
namespace {

struct Result {
  std::string text;
  std::vector<int32_t> ids;
  std::vector<int64_t> offsets;
  FinishReason finish = FinishReason::none;
  bool operator==(const Result&) const = default;
};

void add(Result& result, const AnswerPiece& piece) {
  result.text += piece.text;
  for (const TokenDetail& token : piece.tokens) {
    result.ids.push_back(token.id);
    result.offsets.push_back(token.text_offset);
  }
}

// `every`: a piece is taken after so many events with text; 0: only at the end.
Result run(const std::string& answer, OutputOptions output, int every) {
  const FakeTokenizer tokenizer;
  output.return_token_ids = true;
  const std::vector<int32_t> prompt = {256, 'P', 'q'};
  ChoiceAssembler choice(tokenizer, output, prompt, true);
  Result result;
  int events = 0;
  for (const int32_t id : tokenizer.encode(answer)) {
    choice.accept(token_event(id));
    if (every > 0 && choice.has_text() && ++events % every == 0) add(result, choice.take());
  }
  choice.accept(finished_event(FinishReason::length));
  add(result, choice.take());
  result.finish = choice.finish();
  return result;
}

TEST(ChoiceAssembler, TheStreamEqualsTheWhole) {
  for (const char* answer :
       {"", "hello", "héllo wörld \xF0\x9F\x98\x80!", "END", "one EN two ENDthree", "cut \xE2\x82"}) {
    for (const bool echo : {false, true}) {
      OutputOptions output;
      output.stop = {"END", "wor"};
      output.echo = echo;
      const Result whole = run(answer, output, 0);
      for (const int every : {1, 2, 3})
        EXPECT_EQ(run(answer, output, every), whole) << answer << " " << every;
    }
  }
}

TEST(ChoiceAssembler, StopsAtAStopString) {
  OutputOptions output;
  output.stop = {"END"};
  const Result result = run("one ENDtwo", output, 1);
  EXPECT_EQ(result.text, "one ");
  EXPECT_EQ(result.finish, FinishReason::stop);
  EXPECT_EQ(result.ids.size(), 7u);  // up to the token that completed it
}

// What is left of a cut character reads U+FFFD, and may complete a stop string at the very end.
TEST(ChoiceAssembler, StopsAtAStopStringThatTheEndCompletes) {
  OutputOptions output;
  output.stop = {"b\uFFFD"};
  const Result result = run("ab\xE2", output, 1);
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.finish, FinishReason::stop);
}

TEST(ChoiceAssembler, NoPrefixOfAStopStringLeaks) {
  const FakeTokenizer tokenizer;
  OutputOptions output;
  output.stop = {"END"};
  ChoiceAssembler choice(tokenizer, output, {}, false);
  for (const char byte : std::string("aEN")) choice.accept(token_event(byte));
  EXPECT_EQ(choice.take().text, "a");
  EXPECT_FALSE(choice.has_text());
  choice.accept(token_event('x'));
  EXPECT_EQ(choice.take().text, "ENx");
}

TEST(ChoiceAssembler, EchoCarriesThePromptsLogprobs) {
  const FakeTokenizer tokenizer;
  OutputOptions output;
  output.echo = output.logprobs = true;
  const std::vector<int32_t> prompt = {256, 'P', 0xC3, 0xA9, 'q'};
  ChoiceAssembler choice(tokenizer, output, prompt, true);
  for (size_t i = 1; i < prompt.size(); ++i) {
    TokenEvent event = token_event(prompt[i], 0, -static_cast<float>(i));
    event.kind = TokenEvent::Kind::prompt_logprob;
    choice.accept(event);
  }
  choice.accept(token_event('!', 0, -9.0f));
  choice.accept(finished_event(FinishReason::stop));
  const AnswerPiece piece = choice.take();
  EXPECT_EQ(piece.text, "P\xC3\xA9q!");
  ASSERT_EQ(piece.tokens.size(), 6u);
  EXPECT_FALSE(piece.tokens[0].logprob.has_value());
  EXPECT_EQ(piece.tokens[1].logprob, -1.0f);
  EXPECT_EQ(piece.tokens[4].logprob, -4.0f);
  EXPECT_EQ(piece.tokens[5].logprob, -9.0f);
  EXPECT_EQ(piece.tokens[3].text_offset, 1);  // é begins there, whichever of its bytes
  EXPECT_EQ(piece.tokens[4].text_offset, 2);
  EXPECT_EQ(piece.tokens[5].text_offset, 3);
  EXPECT_EQ(choice.n_tokens(), 1);
}

TEST(ChoiceAssembler, TakesNothingAfterItsEnd) {
  const FakeTokenizer tokenizer;
  OutputOptions output;
  output.stop = {"b"};
  ChoiceAssembler choice(tokenizer, output, {}, false);
  for (const char byte : std::string("abcd")) choice.accept(token_event(byte));
  choice.accept(finished_event(FinishReason::cancelled));
  EXPECT_EQ(choice.take().text, "a");
  EXPECT_EQ(choice.n_tokens(), 2);
  EXPECT_EQ(choice.finish(), FinishReason::stop);
}

}  // namespace
}  // namespace tramontane
