#include "config/server_config.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>
#include <map>
#include <stdexcept>

namespace tramontane {
namespace {

// The last name wins when a declared option has several spellings; all of ours have one long name.
std::string flag_of(const CLI::Option& option) {
  return "--" + option.get_lnames().front();
}

std::string variable_of(const CLI::Option& option) {
  std::string name = "TRAMONTANE_" + option.get_lnames().front();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(c == '-' ? '_' : std::toupper(c)); });
  return name;
}

template <typename T>
std::string spell(T value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

// Whole text, no overflow, inside [low, high]: NaN and "12abc" are neither.
template <typename T>
CLI::Validator in_range(T low, T high) {
  const std::string name =
      high == std::numeric_limits<T>::max() ? ">= " + spell(low) : spell(low) + ".." + spell(high);
  return {[=](std::string& text) -> std::string {
            T value{};
            const char* end = text.data() + text.size();
            const auto [stop, error] = std::from_chars(text.data(), end, value);
            if (error == std::errc{} && stop == end && value >= low && value <= high) return {};
            return "'" + text + "' is not a number " + (name[0] == '>' ? name : "in " + name);
          },
          name};
}

CLI::Validator one_of(std::vector<std::string> names) {
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : "|") + name;
  return {[names = std::move(names), joined](std::string& text) -> std::string {
            if (std::find(names.begin(), names.end(), text) != names.end()) return {};
            return "'" + text + "' is none of " + joined;
          },
          joined};
}

// Rewrites "4GiB" to the number of bytes, so that what follows sees a plain integer.
CLI::Validator byte_size() {
  return {[](std::string& text) -> std::string {
            try {
              text = std::to_string(parse_bytes(text));
              return {};
            } catch (const std::runtime_error& error) {
              return error.what();
            }
          },
          ""};
}

CLI::Validator gpu_memory() {
  return {[](std::string& text) -> std::string {
            try {
              parse_gpu_memory(text);
              return {};
            } catch (const std::runtime_error& error) {
              return error.what();
            }
          },
          "0.05..1.0 or SIZE"};
}

constexpr int32_t kMaxInt = std::numeric_limits<int32_t>::max();
constexpr double kMaxDouble = std::numeric_limits<double>::max();

// One option: variable, text and checks in one place; the default is the member's own initialiser.
template <typename T>
CLI::Option* declare(CLI::App& command, const std::string& flag, T& target, const std::string& meaning) {
  return command.add_option(flag, target, meaning)->capture_default_str()->type_name("");
}
template <typename T>
CLI::Option* declare(CLI::App& command, const std::string& flag, T& target, const std::string& meaning,
                     CLI::Validator check) {
  // What is allowed stands in the type's place: "--port 0..65535", not "--port INT:0..65535".
  CLI::Option* option = declare(command, flag, target, meaning)->type_name(check.get_description());
  return option->check(check.description(""));
}

void apply_config_file(CLI::App& command, const std::string& path) {
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_file(path);
  } catch (const CLI::Error&) {
    throw CLI::ValidationError("--config", "cannot read " + path);
  }
  for (const CLI::ConfigItem& item : items) {
    CLI::Option* option = item.parents.empty() ? command.get_option_no_throw("--" + item.name) : nullptr;
    if (option == nullptr || item.name == "config" || item.name == "help") {
      throw CLI::ValidationError("--config",
                                 path + ": '" + item.fullname() + "' is no option of " + command.get_name());
    }
    if (option->empty()) option->add_result(item.inputs);  // a flag or a variable has spoken already
  }
}

}  // namespace

uint64_t parse_bytes(const std::string& text) {
  static const std::map<std::string, uint64_t> units = {{"", 1},
                                                        {"B", 1},
                                                        {"KB", 1000},
                                                        {"MB", 1000'000},
                                                        {"GB", 1000'000'000},
                                                        {"TB", 1000'000'000'000},
                                                        {"KIB", 1 << 10},
                                                        {"MIB", 1 << 20},
                                                        {"GIB", 1 << 30},
                                                        {"TIB", uint64_t{1} << 40}};
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  std::string unit(stop, end);
  std::transform(unit.begin(), unit.end(), unit.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const auto factor = units.find(unit);
  uint64_t bytes = 0;
  if (error != std::errc{} || factor == units.end() ||
      __builtin_mul_overflow(number, factor->second, &bytes)) {
    throw std::runtime_error("'" + text + "' is not a size such as 512MB or 4GiB");
  }
  return bytes;
}

GpuMemory parse_gpu_memory(const std::string& text) {
  if (text.find('.') == std::string::npos) {
    if (const uint64_t bytes = parse_bytes(text); bytes >= uint64_t{1} << 20) return {.bytes = bytes};
    throw std::runtime_error("'" + text + "' is less than 1MiB; a share is written as 0.9 or 1.0");
  }
  double share = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, share);
  if (error == std::errc{} && stop == end && share >= 0.05 && share <= 1.0) return {.share = share};
  throw std::runtime_error("'" + text + "' is neither a share from 0.05 to 1.0 nor a size such as 20GiB");
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description) {
  CLI::App* command = app.add_subcommand(name, description);
  // Declared first, hence called first: what the file says is then treated like any other spelling of an
  // option.
  command
      ->add_option_function<std::string>(
          "--config", [command](const std::string& path) { apply_config_file(*command, path); },
          "File with any of these options, one `name = value` a line")
      ->type_name("FILE");
  return command;
}

void name_environment_variables(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || option == command.get_help_ptr()) continue;
    option->envname(variable_of(*option));
  }
}

void add_compute_options(CLI::App& command, ModelOptions& o) {
  declare(command, "--backend", o.backend, "What computes; auto: cuda where it can, else cpu, and says why",
          one_of({"auto", "cpu", "cuda"}));
  declare(command, "--device", o.device, "Which GPU, counted from 0", in_range(0, 1023));
  declare(command, "--gpu-memory", o.gpu_memory,
          "What the model may take of the GPU's memory: a share (0.9) or a size (20GiB)", gpu_memory());
  declare(command, "--prefill-gemm", o.prefill_gemm,
          "Products of long prompts on the GPU; cublas: its tokens may differ with the server's load",
          one_of({"own", "cublas"}));
  declare(command, "--cpu-kernels", o.cpu_kernels,
          "Instruction set of the CPU kernels; without it the best that the processor has",
          one_of({"scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", "amxbf16", "amx"}));
  declare(command, "--threads", o.threads, "Threads that compute; 0: one per core", in_range(0, 1024));
}

void add_model_options(CLI::App& command, ModelOptions& o) {
  declare(command, "--model", o.model, "Checkpoint: a directory (Hugging Face, MLX) or a .gguf file")
      ->required();
  declare(command, "--tokenizer", o.tokenizer,
          "SentencePiece file; without it the checkpoint's own tokenizer");
  declare(command, "--chat-template", o.chat_template,
          "Chat encoding; without it chosen by the vocabulary (32000: v1, 32768: v3)",
          one_of({"v1", "v2", "v3", "chatml"}));
  add_compute_options(command, o);
  declare(command, "--arithmetic", o.arithmetic, "bf16, or f32: the slow reference mode, weights as stored",
          one_of({"bf16", "f32"}));
  declare(command, "--max-model-len", o.max_model_len,
          "Most tokens of prompt and answer together; 0: the model's own, or what memory allows",
          in_range(0, kMaxInt));
  declare(command, "--max-sequences", o.max_sequences, "Sequences that run in one step", in_range(1, 4096));
  declare(command, "--step-tokens", o.step_tokens,
          "Token budget of one step; longer prompts are computed in chunks", in_range(1, 65536));
  declare(command, "--kv-cache-bytes", o.kv_cache_bytes,
          "Memory for keys and values (512MB, 4GiB); 0: what memory allows")
      ->transform(byte_size())
      ->type_name("SIZE");
  command
      .add_flag("--prefix-cache,!--no-prefix-cache", o.prefix_cache,
                "Share computed prefixes between requests")
      ->default_str("true");
}

void add_server_options(CLI::App& command, ServerConfig& c) {
  add_model_options(command, c.model);
  declare(command, "--host", c.host, "Address to listen on");
  declare(command, "--port", c.port, "Port to listen on; 0: any free one, printed at start",
          in_range(0, 65535));
  declare(command, "--served-model-name", c.served_model_name,
          "The name clients use; without it the directory's or file's name");
  declare(command, "--api-key", c.api_keys,
          "Key that clients must send as a bearer token; repeatable; without any there is no authentication");
  declare(command, "--api-key-file", c.api_key_file, "File with one key a line");
  declare(command, "--cors-origin", c.cors_origins,
          "Origin that browsers may call from; repeatable; `*` for any");
  declare(command, "--http-threads", c.http_threads,
          "Connections served at once; 0: max-sequences + max-queue, at most 1024", in_range(0, 65536));
  declare(command, "--max-queue", c.max_queue, "Requests that may wait; more are answered 429",
          in_range(1, 1'000'000));
  declare(command, "--max-queue-tokens", c.max_queue_tokens, "Prompt tokens that may wait",
          in_range<int64_t>(1, int64_t{1} << 40));
  declare(command, "--max-body-bytes", c.max_body_bytes,
          "Largest request body (16MiB); larger ones are answered 413",
          in_range<int64_t>(1, int64_t{1} << 31))
      ->transform(byte_size())
      ->type_name("SIZE up to 2GiB");
  declare(command, "--max-n", c.max_n, "Largest n of a request", in_range(1, 1024));
  declare(command, "--max-stop", c.max_stop, "Most stop strings of a request", in_range(0, 1024));
  declare(command, "--max-logit-bias", c.max_logit_bias, "Most logit_bias entries of a request",
          in_range(0, 1024));
  declare(command, "--max-json-depth", c.max_json_depth, "Deepest nesting of a request's JSON",
          in_range(8, 1024));
  declare(command, "--request-timeout", c.request_timeout, "Seconds a request may take; 0: no limit",
          in_range(0.0, kMaxDouble));
  declare(command, "--queue-timeout", c.queue_timeout,
          "Seconds a request may wait before it is answered 429; 0: no limit", in_range(0.0, kMaxDouble));
  declare(command, "--drain-timeout", c.drain_timeout,
          "Seconds that streams in flight may take after SIGTERM", in_range(0.0, kMaxDouble));
  declare(command, "--watchdog-seconds", c.watchdog_seconds,
          "Not ready when work is queued and no step ended for so long", in_range(1.0, kMaxDouble));
  command
      .add_flag("--strict", c.strict,
                "Unknown or unsupported request fields are a 400 instead of being named in X-Ignored-Params")
      ->default_str("false");
  declare(command, "--log-level", c.log_level, "What is logged",
          one_of({"debug", "info", "warn", "error", "off"}));
  declare(command, "--log-format", c.log_format, "Log lines as text or JSON", one_of({"text", "json"}));
}

void check_consistent(const ModelOptions& o) {
  if (o.backend == "cuda" && o.arithmetic == "f32")
    throw std::runtime_error("--arithmetic f32 runs on the CPU alone, --backend says cuda");
  if (o.backend == "cuda" && !o.cpu_kernels.empty())
    throw std::runtime_error("--cpu-kernels is given and --backend says cuda");
  const ModelOptions untouched;
  if (o.backend == "cpu" && (o.gpu_memory != untouched.gpu_memory || o.device != untouched.device))
    throw std::runtime_error("--gpu-memory and --device choose of GPUs, --backend says cpu");
  if (o.backend == "cpu" && o.prefill_gemm != untouched.prefill_gemm)
    throw std::runtime_error("--prefill-gemm " + o.prefill_gemm + " is for GPUs, --backend says cpu");
  if (o.arithmetic == "f32" && !o.cpu_kernels.empty() && o.cpu_kernels != "scalar") {
    throw std::runtime_error("--arithmetic f32 runs on the scalar kernels, --cpu-kernels says " +
                             o.cpu_kernels);
  }
  if (o.step_tokens < o.max_sequences) {
    throw std::runtime_error("--step-tokens is " + std::to_string(o.step_tokens) +
                             ", less than --max-sequences " + std::to_string(o.max_sequences) +
                             ": each running sequence takes a token of every step");
  }
}

void check_consistent(const ServerConfig& c) {
  check_consistent(c.model);
  if (c.request_timeout > 0 && c.queue_timeout > c.request_timeout) {
    throw std::runtime_error("--queue-timeout is " + spell(c.queue_timeout) +
                             " s, longer than --request-timeout " + spell(c.request_timeout) + " s");
  }
  for (const std::string& key : c.api_keys) {
    if (key.empty()) throw std::runtime_error("--api-key: a key must not be empty");
  }
}

std::string options_markdown(const CLI::App& command) {
  std::string table = "| flag | values | variable | default | meaning |\n|---|---|---|---|---|\n";
  const auto cell = [](std::string text) {  // a bar would end the cell
    for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
    return text;
  };
  for (const CLI::Option* option : command.get_options()) {
    if (option == command.get_help_ptr()) continue;
    const std::string values = option->get_type_name();
    std::string fallback = option->get_default_str();
    if (fallback == "[]" || fallback == "\"\"") fallback.clear();
    if (option->get_required()) fallback = "required";
    table += "| `" + flag_of(*option) + "` | " + cell(values) + " | `" + option->get_envname() + "` | " +
             cell(fallback) + " | " + cell(option->get_description()) + " |\n";
  }
  return table;
}

}  // namespace tramontane
