// `tramontane tokenize` and `tramontane apply-template`: one line of JSON in, one line out, flushed at once.
// Main's thread.
#pragma once

#include <string>

namespace tramontane {

struct TokenizeOptions {
  std::string tokenizer;  // see load_tokenizer.h
  bool decode = false;    // arrays of ids to strings
};

struct ApplyTemplateOptions {
  std::string tokenizer;
  std::string chat_template;  // v1, v2, v3, chatml; empty: guessed from the vocabulary
};

// Each line of standard input, a JSON string, gives the JSON array of its ids (no BOS); with `decode` the
// other way round. A line that is neither gives {"error": "…"}, and the next line is read; the exit code then
// is 1, else 0. Throws std::runtime_error for the tokenizer.
int run_tokenize(const TokenizeOptions& options);

// Each line of standard input, a chat request in OpenAI's form, gives {"ids": [...]} or {"error": "…"}:
// exactly mistral-common's answer, so tool-call ids are not mapped. An error is an answer: the exit code is
// 0. Throws std::runtime_error for tokenizer and template.
int run_apply_template(const ApplyTemplateOptions& options);

}  // namespace tramontane
