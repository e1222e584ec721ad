#include "server/cli/tokenize.h"

#include <charconv>
#include <iostream>
#include <stdexcept>
#include <vector>

#include "server/cli/load_tokenizer.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/python_json.h"

namespace tramontane {
namespace {

std::string json_of_ids(const std::vector<int32_t>& ids) {
  std::string out = "[";
  for (const int32_t id : ids) out += (out.size() > 1 ? ", " : "") + std::to_string(id);
  return out + "]";
}

std::string json_error(const std::string& message) {
  return dump_python_json({PythonJson::Object{{"error", {message}}}});
}

std::string encode_line(const Tokenizer& tokenizer, const PythonJson& line) {
  if (!line.string())
    throw std::runtime_error(std::string("expected a JSON string, got ") + line.type_name());
  return json_of_ids(tokenizer.encode(*line.string()));
}

int32_t id_of(const PythonJson& json, int32_t vocab_size) {
  int32_t id = -1;
  if (!json.number() || !json.number()->is_integer) {
    throw std::runtime_error("expected token ids, got " + std::string(json.type_name()));
  }
  const std::string& text = json.number()->text;
  std::from_chars(text.data(), text.data() + text.size(), id);
  if (id < 0 || id >= vocab_size) {
    throw std::runtime_error("token id " + text.substr(0, 20) + " is not in the vocabulary of " +
                             std::to_string(vocab_size));
  }
  return id;
}

std::string decode_line(const Tokenizer& tokenizer, const PythonJson& line) {
  if (!line.array())
    throw std::runtime_error(std::string("expected a JSON array of token ids, got ") + line.type_name());
  std::vector<int32_t> ids;
  for (const PythonJson& item : *line.array()) ids.push_back(id_of(item, tokenizer.vocab_size()));
  return dump_python_json({tokenizer.decode(ids)});
}

}  // namespace

int run_tokenize(const TokenizeOptions& options) {
  const auto tokenizer = load_tokenizer(options.tokenizer);
  int exit_code = 0;
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      const PythonJson json = parse_python_json(line);
      answer = options.decode ? decode_line(*tokenizer, json) : encode_line(*tokenizer, json);
    } catch (const std::exception& error) {
      answer = json_error(error.what());
      exit_code = 1;
    }
    std::cout << answer << std::endl;
  }
  return exit_code;
}

int run_apply_template(const ApplyTemplateOptions& options) {
  auto tokenizer = load_tokenizer(options.tokenizer);
  const std::string& name = options.chat_template;
  const auto format = name.empty() ? guess_chat_format(*tokenizer) : parse_chat_format(name);
  if (!format) {
    throw std::runtime_error(
        "--chat-template: expected v1, v2, v3 or chatml, got " +
        (name.empty() ? "nothing, and the vocabulary does not tell" : "\"" + name + "\""));
  }
  const ChatTemplate chat_template(std::move(tokenizer), *format);
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      answer = "{\"ids\": " + json_of_ids(chat_template.encode(line).ids) + "}";
    } catch (const ChatError& error) {
      answer = json_error(error.what());
    }
    std::cout << answer << std::endl;
  }
  return 0;
}

}  // namespace tramontane
