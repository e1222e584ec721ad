#include "server/cli/compare.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "evaluation/compare.h"
#include "evaluation/report.h"
#include "server/cli/load_model.h"
#include "server/cli/load_tokenizer.h"

namespace tramontane {
namespace {

using Clock = std::chrono::steady_clock;

ChatTemplate make_chat_template(const std::shared_ptr<const Tokenizer>& tokenizer, const std::string& name) {
  const auto format = name.empty() ? guess_chat_format(*tokenizer) : parse_chat_format(name);
  if (format) return {tokenizer, *format};
  throw std::runtime_error(name.empty() ? "no chat template for this vocabulary: give --chat-template"
                                        : "--chat-template: unknown format '" + name + "'");
}

// One moving line on a terminal; elsewhere a line for each thing begun.
class ProgressLine {
 public:
  void show(const std::string& what, size_t done, size_t total) {
    const auto now = Clock::now();
    if (terminal_) {
      if (what == what_ && now - shown_ < std::chrono::milliseconds(100)) return;
      fmt::print(stderr, "\r{} {} of {}\033[K", what, done, total);
    } else if (what != what_) {
      fmt::print(stderr, "{}\n", what);
    }
    std::fflush(stderr);
    what_ = what;
    shown_ = now;
  }
  ~ProgressLine() {
    if (terminal_) fmt::print(stderr, "\r\033[K");
  }

 private:
  bool terminal_ = isatty(STDERR_FILENO) == 1;
  std::string what_;
  Clock::time_point shown_;
};

// Before the long work: a report that cannot be written should not be made first. Leaves what was there, and
// nothing where nothing was.
void check_writable(const std::string& path) {
  if (path.empty()) return;
  const bool existed = std::filesystem::exists(path);
  if (!std::ofstream(path, std::ios::app)) throw std::runtime_error(path + ": cannot be written");
  if (!existed) std::filesystem::remove(path);
}

// Equal sizes do not make equal vocabularies: the ids of both must stand for the same text. Control tokens
// have changed their names between releases of one vocabulary; a candidate without a tokenizer is believed.
void check_same_tokens(const Tokenizer& reference, const std::string& candidate) {
  const auto own = own_tokenizer(Checkpoint::open(candidate)->tokenizer());
  const int32_t common = own ? std::min(own->vocab_size(), reference.vocab_size()) : 0;
  for (int32_t id = 0; id < common; ++id) {
    if (own->is_control(id) || reference.is_control(id)) continue;
    if (own->token_bytes(id) == reference.token_bytes(id)) continue;
    throw std::runtime_error(fmt::format(
        "{}: token {} is \"{}\", with the reference \"{}\": only equal vocabularies can be compared",
        candidate, id, own->piece(id), reference.piece(id)));
  }
}

void write_file(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw std::runtime_error(path + ": cannot be written");
  fmt::print(stderr, "wrote {} ({} kB)\n", path, (text.size() + 999) / 1000);
}

CompareInput input_of(const CompareOptions& options) {
  CompareInput input;
  input.reference = options.model.model;
  input.candidates.assign(options.candidates.begin(), options.candidates.end());
  input.max_tokens = options.max_tokens;
  input.noise_floor = options.noise_floor;
  if (!options.multiple_choice.empty()) {
    input.items = read_choice_items(options.multiple_choice);
  } else {
    input.prompts = options.prompts.empty() ? default_prompts() : read_prompts(options.prompts);
  }
  return input;
}

}  // namespace

int run_compare(const CompareOptions& options) {
  const auto start = Clock::now();
  check_consistent(options.model);
  if (options.model.prefill_gemm == "cublas") {
    throw std::runtime_error(
        "--prefill-gemm cublas: compare needs tokens that do not depend on the load: own");
  }
  const CompareInput input = input_of(options);
  const auto tokenizer =
      load_tokenizer(options.model.tokenizer.empty() ? options.model.model : options.model.tokenizer);
  const ChatTemplate chat_template = make_chat_template(tokenizer, options.model.chat_template);
  for (const std::string& candidate : options.candidates) check_same_tokens(*tokenizer, candidate);
  check_writable(options.json);
  check_writable(options.html);
  const auto backend = [&](bool f32) {
    ModelOptions model = options.model;
    model.arithmetic = f32 ? "f32" : "bf16";
    if (f32) model.cpu_kernels.clear(), model.backend = "auto";  // the F32 mode is the CPU's, with its own
    return choose_backend(model).backend;
  };
  const Comparison result = [&] {
    ProgressLine line;
    return compare(input, chat_template, *tokenizer, backend,
                   [&](const std::string& what, size_t done, size_t total) { line.show(what, done, total); });
  }();
  fmt::print("{}", text_report(result));
  write_file(options.json, json_report(result));
  write_file(options.html, html_report(result));
  fmt::print(stderr, "compared in {:.0f} s\n", std::chrono::duration<double>(Clock::now() - start).count());
  return 0;
}

}  // namespace tramontane
