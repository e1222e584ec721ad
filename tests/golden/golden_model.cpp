#include "tests/golden/golden_model.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace tramontane {

GoldenModel read_golden_model(const std::string& name, const std::filesystem::path& expected,
                              const std::string& tag) {
  const auto json = nlohmann::json::parse(std::ifstream(expected));
  GoldenModel model{.name = name,
                    .normative = tag.empty() ? json.at("normative").get<std::string>() : tag,
                    .folder = {},
                    .prompts = {}};
  for (const auto& prompt : json.at("prompts")) {
    const auto& reference = prompt.at(model.normative);
    model.prompts.push_back(
        {prompt.at("name"), prompt.at("ids"), reference.at("greedy"), reference.at("margin")});
  }
  return model;
}

GoldenTensors::GoldenTensors(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  uint64_t size = 0;
  stream.read(reinterpret_cast<char*>(&size), sizeof size);
  std::string header(size, ' ');
  stream.read(header.data(), static_cast<std::streamsize>(size));
  header_ = nlohmann::json::parse(header);
  data_.assign(std::istreambuf_iterator<char>(stream), {});
}

template <typename T>
std::vector<T> GoldenTensors::read(const std::string& name, const char* dtype) const {
  const auto& entry = header_.at(name);
  if (entry.at("dtype") != dtype) throw std::runtime_error(name + ": expected " + dtype);
  const size_t begin = entry.at("data_offsets")[0], end = entry.at("data_offsets")[1];
  std::vector<T> values((end - begin) / sizeof(T));
  std::memcpy(values.data(), data_.data() + begin, end - begin);
  return values;
}

std::vector<float> GoldenTensors::floats(const std::string& name) const {
  return read<float>(name, "F32");
}
std::vector<int32_t> GoldenTensors::ints(const std::string& name) const {
  return read<int32_t>(name, "I32");
}

std::string check_greedy(const GoldenPrompt& prompt, std::span<const int32_t> answer) {
  constexpr int32_t kEndOfSequence = 2;
  constexpr float kClearMargin = 0.5f;
  for (size_t step = 0; step < prompt.greedy.size(); ++step) {
    if (step >= answer.size()) return prompt.name + ": the answer ends at step " + std::to_string(step);
    if (answer[step] != prompt.greedy[step]) {
      if (prompt.margin[step] < kClearMargin) return {};
      return prompt.name + ": step " + std::to_string(step) + " is " + std::to_string(answer[step]) +
             ", expected " + std::to_string(prompt.greedy[step]) + " (margin " +
             std::to_string(prompt.margin[step]) + ")";
    }
    if (answer[step] == kEndOfSequence) return {};
  }
  return {};
}

}  // namespace tramontane
