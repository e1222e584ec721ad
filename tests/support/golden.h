// Where the golden reference data are: tests/golden in every clone (a subset of at most 25 MB), the full set in ../shared/golden where that exists.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace tramontane {

// The file or folder `name` of the golden set, from the first place that has it; nothing when neither does.
std::optional<std::filesystem::path> find_golden(const std::string& name);

// The default model (SmolLM2-135M-Instruct.Q4_1.gguf) in the user's cache folder, as script/server leaves it; nothing when absent.
std::optional<std::filesystem::path> find_default_model();

}  // namespace tramontane

// In a test: binds `variable` to the path, or skips the test and says which data it misses.
#define GOLDEN_OR_SKIP(variable, name)                                                     \
  const auto variable##_found = ::tramontane::find_golden(name);                           \
  if (!variable##_found) GTEST_SKIP() << "golden data not in this clone: " << (name);      \
  const std::filesystem::path variable = *variable##_found
#define DEFAULT_MODEL_OR_SKIP(variable)                                                    \
  const auto variable##_found = ::tramontane::find_default_model();                        \
  if (!variable##_found) GTEST_SKIP() << "the default model is not in the cache folder: run script/bootstrap"; \
  const std::filesystem::path variable = *variable##_found
