#include "evaluation/questions.h"

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stdexcept>

#include "evaluation/default_prompts.h"

namespace tramontane {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxOptions = 26;

// Calls take(line) for each line that is not blank; what it throws gets file and line number before it.
void for_each_line(std::istream& in, const std::string& name,
                   const std::function<void(const std::string& line, size_t number)>& take) {
  std::string line;
  for (size_t number = 1; std::getline(in, line); ++number) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ' || line.back() == '\t'))
      line.pop_back();
    if (number == 1 && line.starts_with("\xef\xbb\xbf")) line.erase(0, 3);
    if (line.empty()) continue;
    try {
      take(line, number);
    } catch (const std::exception& fault) {
      throw std::runtime_error(name + ": line " + std::to_string(number) + ": " + fault.what());
    }
  }
}

std::ifstream open(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error))
    throw std::runtime_error(file.string() + ": not a file");
  const auto size = std::filesystem::file_size(file, error);
  if (!error && size > kMaxFileBytes) {
    throw std::runtime_error(file.string() + ": " + std::to_string(size) + " bytes, expected at most " +
                             std::to_string(kMaxFileBytes));
  }
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error(file.string() + ": cannot be read");
  return in;
}

Json parse_object(const std::string& line) {
  // Depth is bounded: the parser is recursive in its result's destructor.
  int depth = 0;
  const Json json = Json::parse(
      line,
      [&](int, Json::parse_event_t event, Json&) {
        using Event = Json::parse_event_t;
        if (event == Event::object_start || event == Event::array_start) ++depth;
        if (event == Event::object_end || event == Event::array_end) --depth;
        if (depth > 64) throw std::runtime_error("nested deeper than 64");
        return true;
      },
      false);
  if (json.is_discarded()) throw std::runtime_error("not valid JSON");
  if (!json.is_object())
    throw std::runtime_error(std::string("expected a JSON object, got ") + json.type_name());
  return json;
}

std::string string_field(const Json& object, const char* name, bool required) {
  const auto found = object.find(name);
  if (found == object.end()) {
    if (!required) return {};
    throw std::runtime_error(std::string(name) + " is missing");
  }
  if (!found->is_string()) {
    throw std::runtime_error(std::string(name) + ": expected a string, got " + found->type_name());
  }
  auto text = found->get<std::string>();
  if (required && text.empty()) throw std::runtime_error(std::string(name) + " is empty");
  return text;
}

std::optional<int32_t> index_field(const Json& object, const char* name, size_t n_options) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return {};
  if (!found->is_number_integer() || *found < 0 || *found >= n_options) {
    throw std::runtime_error(std::string(name) + ": expected an option's index 0.." +
                             std::to_string(n_options - 1) + ", got " +
                             found->dump(-1, ' ', true).substr(0, 40));
  }
  return found->get<int32_t>();
}

std::vector<std::string> options_field(const Json& object) {
  const auto found = object.find("options");
  if (found == object.end()) throw std::runtime_error("options is missing");
  if (!found->is_array() || found->size() < 2 || found->size() > kMaxOptions) {
    throw std::runtime_error("options: expected an array of 2 to " + std::to_string(kMaxOptions) +
                             " strings, got " +
                             (found->is_array() ? std::to_string(found->size()) : found->type_name()));
  }
  std::vector<std::string> options;
  std::set<std::string> seen;
  for (const Json& option : *found) {
    const std::string place = "options[" + std::to_string(options.size()) + "]";
    if (!option.is_string() || option.get_ref<const std::string&>().empty()) {
      throw std::runtime_error(place + ": expected a non-empty string");
    }
    options.push_back(option.get<std::string>());
    if (!seen.insert(options.back()).second) throw std::runtime_error(place + ": stands there twice");
  }
  return options;
}

ChoiceItem choice_item(const Json& object, size_t line) {
  ChoiceItem item;
  item.question = string_field(object, "question", true);
  const std::string context = string_field(object, "context", false);
  if (!context.empty()) item.question = context + "\n" + item.question;
  item.options = options_field(object);
  item.gold = index_field(object, "gold", item.options.size());
  item.unknown = index_field(object, "unknown", item.options.size());
  item.stereotyped = index_field(object, "stereotyped", item.options.size());
  if (item.unknown && item.unknown == item.stereotyped) {
    throw std::runtime_error("unknown and stereotyped name the same option");
  }
  const auto id = object.find("id");
  item.id = id == object.end() ? std::to_string(line) : id->is_string() ? id->get<std::string>() : id->dump();
  return item;
}

Prompt prompt_of_object(const Json& object) {
  const bool has_messages = object.contains("messages");
  if (has_messages == object.contains("prompt"))
    throw std::runtime_error("expected either prompt or messages");
  if (!has_messages) return prompt_of_text(string_field(object, "prompt", true));
  const Json& messages = object["messages"];
  if (!messages.is_array() || messages.empty())
    throw std::runtime_error("messages: expected a non-empty array");
  Prompt prompt{.text = {}, .messages = messages.dump()};
  for (const Json& message : messages) {
    if (!message.is_object() || message.value("role", Json()) != "user") continue;
    const auto content = message.find("content");
    if (content != message.end())
      prompt.text = content->is_string() ? content->get<std::string>() : content->dump();
  }
  return prompt;
}

std::vector<Prompt> prompts_of(std::istream& in, const std::string& name, bool json_lines) {
  std::vector<Prompt> prompts;
  for_each_line(in, name, [&](const std::string& line, size_t) {
    if (json_lines) {
      prompts.push_back(prompt_of_object(parse_object(line)));
    } else if (line.front() != '#') {
      prompts.push_back(prompt_of_text(line));
    }
  });
  if (prompts.empty()) throw std::runtime_error(name + ": no prompts in it");
  return prompts;
}

}  // namespace

Prompt prompt_of_text(const std::string& text) {
  try {
    return {.text = text, .messages = Json::array({{{"role", "user"}, {"content", text}}}).dump()};
  } catch (const Json::exception&) {
    throw std::runtime_error("not valid UTF-8");
  }
}

std::vector<Prompt> read_prompts(const std::filesystem::path& file) {
  auto in = open(file);
  return prompts_of(in, file.string(), file.extension() == ".jsonl");
}

std::vector<Prompt> default_prompts() {
  std::istringstream in{std::string(kDefaultPrompts)};
  return prompts_of(in, "evaluation/prompts.txt", false);
}

std::vector<ChoiceItem> read_choice_items(const std::filesystem::path& file) {
  auto in = open(file);
  std::vector<ChoiceItem> items;
  for_each_line(in, file.string(), [&](const std::string& line, size_t number) {
    items.push_back(choice_item(parse_object(line), number));
  });
  if (items.empty()) throw std::runtime_error(file.string() + ": no items in it");
  return items;
}

std::vector<int32_t> encode_prompt(const ChatTemplate& chat_template, const Prompt& prompt) {
  try {
    return chat_template.encode("{\"messages\":" + prompt.messages + "}").ids;
  } catch (const std::exception& fault) {
    throw std::runtime_error("prompt \"" + prompt.text.substr(0, 60) + "\": " + fault.what());
  }
}

}  // namespace tramontane
