// A golden model's files, read for tests: prompts, the references' greedy answers and their logits. See
// data/README.md.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace tramontane {

struct GoldenPrompt {
  std::string name;
  std::vector<int32_t> ids;
  std::vector<int32_t> greedy;  // by the normative reference, not stopped at the end of sequence
  std::vector<float> margin;    // top-1 minus top-2 logit at each step
};

struct GoldenModel {
  std::string name, normative;
  std::filesystem::path folder;
  std::vector<GoldenPrompt> prompts;
};

// `tag`: whose greedy answers; empty: the normative reference's. `expected`: the .expected.json file.
GoldenModel read_golden_model(const std::string& name, const std::filesystem::path& expected,
                              const std::string& tag = {});

// The tensors of an .expected.safetensors file (plain F32, I32, BF16; the header is trusted: it is our own
// data).
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::filesystem::path& file);
  bool has(const std::string& name) const { return header_.contains(name); }
  std::vector<float> floats(const std::string& name) const;  // F32
  std::vector<int32_t> ints(const std::string& name) const;  // I32

 private:
  template <typename T>
  std::vector<T> read(const std::string& name, const char* dtype) const;

  nlohmann::json header_;
  std::string data_;
};

// What a greedy answer may do (data/README.md, check 4): equal the reference up to and including the first
// end-of-sequence id 2; parting where the reference's own margin is below 0.5 ends the comparison. Empty: as
// it should be; else what is wrong.
std::string check_greedy(const GoldenPrompt& prompt, std::span<const int32_t> answer);

}  // namespace tramontane
