// Any bytes as a multiple-choice file and as JSON lines of prompts: items within their bounds, or a
// std::runtime_error.
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "engine/backend/check.h"
#include "evaluation/questions.h"
#include "tests/fuzz/memory_file.h"

using namespace tramontane;

namespace {

void check_index(const std::optional<int32_t>& index, size_t count) {
  CHECK(!index || (*index >= 0 && static_cast<size_t>(*index) < count), "an option's index");
}

// The reader of prompts goes by the name: a link that ends in .jsonl.
class JsonLinesName {
 public:
  explicit JsonLinesName(const std::filesystem::path& file)
      : link_(std::filesystem::temp_directory_path() / ("fuzz." + std::to_string(::getpid()) + ".jsonl")) {
    std::filesystem::remove(link_);
    std::filesystem::create_symlink(file, link_);
  }
  ~JsonLinesName() { std::filesystem::remove(link_); }
  const std::filesystem::path& path() const { return link_; }

 private:
  std::filesystem::path link_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const MemoryFile file(data, size);
  try {
    for (const ChoiceItem& item : read_choice_items(file.path())) {
      CHECK(
          !item.question.empty() && !item.id.empty() && item.options.size() >= 2 && item.options.size() <= 26,
          "an item");
      for (const auto& index : {item.gold, item.unknown, item.stereotyped})
        check_index(index, item.options.size());
    }
  } catch (const std::runtime_error&) {
  }
  const JsonLinesName name(file.path());
  for (const std::filesystem::path& path : {file.path(), name.path()}) {
    try {
      for (const Prompt& prompt : read_prompts(path)) CHECK(!prompt.messages.empty(), "a prompt");
    } catch (const std::runtime_error&) {
    }
  }
  return 0;
}
