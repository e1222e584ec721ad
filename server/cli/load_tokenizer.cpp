#include "server/cli/load_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "engine/weights/gguf.h"
#include "engine/weights/mapped_file.h"
#include "tokenizer/gguf_tokenizer.h"

namespace tramontane {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const fs::path& file) {
  char magic[4] = {};
  std::ifstream(file, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic) == "GGUF";
}

fs::path tokenizer_file_in(const fs::path& directory) {
  for (const char* name : {"tokenizer.model.v3", "tokenizer.model"}) {
    if (fs::exists(directory / name)) return directory / name;
  }
  std::vector<fs::path> others;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("tokenizer.model.v") || entry.path().extension() == ".gguf")
      others.push_back(entry.path());
  }
  if (others.empty()) {
    throw std::runtime_error(
        directory.string() + ": no tokenizer found (looked for tokenizer.model, tokenizer.model.v*, *.gguf" +
        (fs::exists(directory / "tokenizer.json") ? "; tokenizer.json is not supported)" : ")"));
  }
  if (others.size() > 1) throw std::runtime_error(directory.string() + ": several tokenizers: name the file");
  return others.front();
}

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string& path) {
  std::error_code error;
  const fs::path file = fs::is_directory(path, error) ? tokenizer_file_in(path) : fs::path(path);
  if (!is_gguf(file)) return load_sentencepiece_tokenizer(file.string());
  try {
    return tokenizer_from_gguf(read_gguf(MappedFile::open(file)).metadata);
  } catch (const std::runtime_error& fault) {
    const std::string what = fault.what();
    throw std::runtime_error(what.find(file.string()) == std::string::npos ? file.string() + ": " + what
                                                                           : what);
  }
}

std::shared_ptr<const Tokenizer> own_tokenizer(const TokenizerSource& source) {
  if (!source.sentencepiece_file.empty())
    return load_sentencepiece_tokenizer(source.sentencepiece_file.string());
  return source.gguf_metadata ? tokenizer_from_gguf(*source.gguf_metadata) : nullptr;
}

}  // namespace tramontane
