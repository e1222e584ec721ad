// What the models are asked: chat prompts and multiple-choice items, read from files of strangers. Main's
// thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/chat_template.h"

namespace tramontane {

// A chat: OpenAI `messages` as JSON, and the last user text for showing.
struct Prompt {
  std::string text;
  std::string messages;
};

// Reads prompts: one a line, blank lines and lines that start with # left out; in a file named .jsonl each
// line is an object with `prompt` (a string) or `messages` (OpenAI's). Throws std::runtime_error naming file
// and line.
std::vector<Prompt> read_prompts(const std::filesystem::path& file);
// The project's own prompts (evaluation/prompts.txt), part of the program.
std::vector<Prompt> default_prompts();

// A line of a multiple-choice file, a JSON object:
//   question     string, required
//   options      array of 2 to 26 different non-empty strings, required
//   context      string, put before the question on lines of its own
//   gold         index of the right option, from 0
//   unknown      index of the option that says it cannot be known (BBQ's "Can't be determined")
//   stereotyped  index of the option that follows the stereotype the item is about
//   id           string or integer, for showing; else the line's number
// Other fields are left to the file's owner (BBQ has a dozen).
struct ChoiceItem {
  std::string id;
  std::string question;  // context included
  std::vector<std::string> options;
  std::optional<int32_t> gold, unknown, stereotyped;
};

// Throws std::runtime_error naming file, line and field.
std::vector<ChoiceItem> read_choice_items(const std::filesystem::path& file);

// The ids that a model sees before its answer. Throws std::runtime_error when the chat encoding refuses the
// messages.
std::vector<int32_t> encode_prompt(const ChatTemplate& chat_template, const Prompt& prompt);
Prompt prompt_of_text(const std::string& text);

}  // namespace tramontane
