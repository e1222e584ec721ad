#include "tests/support/golden.h"

#include <cstdlib>

namespace tramontane {
namespace fs = std::filesystem;

std::optional<fs::path> find_golden(const std::string& name) {
  const fs::path source = TRAMONTANE_SOURCE_DIR;
  for (const fs::path& folder : {source / "tests" / "golden" / "data", source / ".." / "shared" / "golden"}) {
    if (fs::exists(folder / name)) return fs::canonical(folder / name);
  }
  return std::nullopt;
}

std::optional<fs::path> find_default_model() {
  // The same rule as script/default-model: XDG_CACHE_HOME, else ~/.cache.
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  fs::path folder = cache != nullptr && *cache != '\0' ? fs::path(cache) : fs::path(home != nullptr ? home : "") / ".cache";
  const fs::path file = folder / "tramontane" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (fs::exists(file)) return file;
  return std::nullopt;
}

}  // namespace tramontane
