#include "evaluation/questions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace tramontane {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class Questions : public testing::Test {
 protected:
  std::filesystem::path file(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  template <typename Read>
  std::string fault(const Read& read) {
    try {
      read();
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "no error";
  }
  std::string choice_fault(const std::string& text) {
    return fault([&] { read_choice_items(file("items.jsonl", text)); });
  }

 private:
  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("tramontane_questions_" + std::to_string(getpid()));
};

constexpr const char* kGood = R"({"question": "Who?", "options": ["A", "B"]})";

TEST_F(Questions, TheDefaultPromptsAreTwoDozenAndDifferent) {
  std::set<std::string> seen;
  for (const Prompt& prompt : default_prompts()) seen.insert(prompt.text);
  EXPECT_EQ(seen.size(), 24u);
  EXPECT_EQ(default_prompts().size(), 24u);
}

TEST_F(Questions, PromptsOneALine) {
  const auto prompts = read_prompts(file("prompts.txt", "\xef\xbb\xbf# note\n\nHello \"you\"\r\n  Second\n"));
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].text, "Hello \"you\"");
  EXPECT_EQ(prompts[0].messages, R"([{"content":"Hello \"you\"","role":"user"}])");
  EXPECT_EQ(prompts[1].text, "  Second");
}

TEST_F(Questions, PromptsAsJsonLines) {
  const auto prompts = read_prompts(
      file("prompts.jsonl",
           "{\"prompt\": \"a\\nb\"}\n{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, "
           "{\"role\": \"user\", \"content\": \"u\"}]}\n"));
  ASSERT_EQ(prompts.size(), 2u);
  EXPECT_EQ(prompts[0].text, "a\nb");
  EXPECT_EQ(prompts[1].text, "u");
  EXPECT_THAT(prompts[1].messages, HasSubstr("system"));
}

TEST_F(Questions, BadPromptsAreNamedByLine) {
  const auto prompt_fault = [&](const std::string& name, const std::string& text) {
    return fault([&] { read_prompts(file(name, text)); });
  };
  EXPECT_THAT(prompt_fault("p.txt", ""), HasSubstr("p.txt: no prompts"));
  EXPECT_THAT(prompt_fault("p.txt", "# only a note\n"), HasSubstr("no prompts"));
  EXPECT_THAT(prompt_fault("p.txt", "good\nbad \xff\n"), AllOf(HasSubstr("line 2"), HasSubstr("UTF-8")));
  EXPECT_THAT(prompt_fault("p.jsonl", "{\"prompt\": \"a\"}\n{\"prompt\": 3}\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("prompt: expected a string")));
  EXPECT_THAT(prompt_fault("p.jsonl", "{}\n"), HasSubstr("either prompt or messages"));
  EXPECT_THAT(prompt_fault("p.jsonl", "{\"messages\": []}\n"), HasSubstr("non-empty array"));
  EXPECT_THAT(fault([] { read_prompts("/nonexistent"); }), HasSubstr("/nonexistent: not a file"));
  EXPECT_THAT(fault([] { read_prompts("/"); }), HasSubstr("/: not a file"));
}

TEST_F(Questions, ChoiceItems) {
  const auto items = read_choice_items(file(
      "items.jsonl",
      std::string(kGood) + "\n\n" +
          R"({"id": "age-7", "context": "Two people.", "question": "Who?", "options": ["A", "B", "?"],)" +
          R"( "gold": 0, "unknown": 2, "stereotyped": 1, "category": "Age"})" + "\n"));
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].id, "1");
  EXPECT_FALSE(items[0].gold || items[0].unknown || items[0].stereotyped);
  EXPECT_EQ(items[1].id, "age-7");
  EXPECT_EQ(items[1].question, "Two people.\nWho?");
  EXPECT_EQ(items[1].gold, 0);
  EXPECT_EQ(items[1].unknown, 2);
  EXPECT_EQ(items[1].stereotyped, 1);
}

TEST_F(Questions, BadChoiceItemsAreNamedByLineAndField) {
  EXPECT_THAT(choice_fault(""), HasSubstr("items.jsonl: no items"));
  EXPECT_THAT(choice_fault(std::string(kGood) + "\n{oops\n"),
              AllOf(HasSubstr("line 2"), HasSubstr("not valid JSON")));
  EXPECT_THAT(choice_fault("[1]\n"),
              AllOf(HasSubstr("line 1"), HasSubstr("expected a JSON object, got array")));
  EXPECT_THAT(choice_fault(std::string(100000, '[')), AllOf(HasSubstr("line 1"), HasSubstr("deeper")));
  EXPECT_THAT(choice_fault(R"({"options": ["A", "B"]})"), HasSubstr("question is missing"));
  EXPECT_THAT(choice_fault(R"({"question": "Q"})"), HasSubstr("options is missing"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A"]})"), HasSubstr("2 to 26"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", ""]})"), HasSubstr("options[1]"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "A"]})"),
              HasSubstr("options[1]: stands there twice"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "B"], "gold": 2})"),
              HasSubstr("gold: expected an option's index 0..1, got 2"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "B"], "gold": "ééééééééééé"})"),
              EndsWith("got \"\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\\u0"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "B"], "unknown": "B"})"),
              HasSubstr("unknown"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "B"], "gold": 18446744073709551615})"),
              HasSubstr("gold"));
  EXPECT_THAT(choice_fault(R"({"question": "Q", "options": ["A", "B"], "unknown": 1, "stereotyped": 1})"),
              AllOf(HasSubstr("same option"), Not(HasSubstr("\n"))));
}

}  // namespace
}  // namespace tramontane
