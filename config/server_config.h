// ServerConfig: every knob of the program, declared once in server_config.cpp with CLI11: flag, environment
// variable (TRAMONTANE_…), config file, help, range check and README row all come from that one declaration.
// Plain data after parsing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tramontane {

// Which model, and how it is run: common to serve, generate and logits.
struct ModelOptions {
  std::string model;                 // a directory or a .gguf file
  std::string tokenizer;             // a SentencePiece file; empty: the checkpoint's own
  std::string chat_template;         // v1, v2, v3, chatml; empty: from the vocabulary
  std::string backend = "auto";      // auto, cpu, cuda
  int32_t device = 0;                // which GPU
  std::string gpu_memory = "0.9";    // a share of the GPU's memory, or bytes; see parse_gpu_memory
  std::string prefill_gemm = "own";  // own, cublas: gives up equal tokens at any load
  std::string cpu_kernels;           // empty: the best
  std::string arithmetic = "bf16";   // bf16, f32 (reference mode)
  int32_t threads = 0;               // 0: one per core
  int32_t max_model_len = 0;         // 0: the model's own
  int32_t max_sequences = 64;
  int32_t step_tokens = 512;
  uint64_t kv_cache_bytes = 0;  // 0: what memory allows; takes "512MB", "4GiB"
  bool prefix_cache = true;
};

struct ServerConfig {
  ModelOptions model;
  std::string host = "127.0.0.1";
  int32_t port = 8080;                // 0: any free port, printed at start
  std::string served_model_name;      // empty: the directory's or file's name
  std::vector<std::string> api_keys;  // empty (and no file): no authentication
  std::string api_key_file;           // one key a line
  std::vector<std::string> cors_origins;
  int32_t http_threads = 0;  // 0: max_sequences + max_queue bounded; one connection holds one
  int32_t max_queue = 1024;
  int64_t max_queue_tokens = 1'000'000;
  int64_t max_body_bytes = 16 * 1024 * 1024;
  int32_t max_n = 16, max_stop = 16, max_logit_bias = 1024, max_json_depth = 64;
  double request_timeout = 0;  // seconds; 0: none. A request's own `timeout` wins when shorter
  double queue_timeout = 0;    // seconds a request may wait; 0: no limit
  double drain_timeout = 30;
  double watchdog_seconds = 60;  // not ready when work is queued and no step ended for so long
  bool strict = false;           // unsupported or unknown request fields are a 400
  std::string log_level = "info", log_format = "text";
};

// Adds the options to a subcommand; the structs must outlive parsing. Errors are CLI11's (one line, exit code
// != 0).
void add_model_options(CLI::App& command, ModelOptions& options);
// Of these only what computes: --backend to --threads.
void add_compute_options(CLI::App& command, ModelOptions& options);
void add_server_options(CLI::App& command, ServerConfig& config);  // includes the model's

// A subcommand that takes --config FILE. Precedence: flag, then environment variable, then file, then
// default. The file has one `name = value` a line (TOML, INI), names as the flags without the dashes; unknown
// names are errors.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description);
// Gives every option of the command its variable: --max-model-len is TRAMONTANE_MAX_MODEL_LEN. Call after the
// options are added.
void name_environment_variables(CLI::App& command);

// Contradictions between options that are each in range. Throws std::runtime_error with one line naming both.
void check_consistent(const ModelOptions& options);
void check_consistent(const ServerConfig& config);

// The command's options as a Markdown table: flag, variable, default, meaning. README.md holds it and a test
// compares the two.
std::string options_markdown(const CLI::App& command);

// "512MB" -> 512'000'000, "4GiB" -> 4'294'967'296, "65536" -> 65'536. Throws std::runtime_error for anything
// else, overflow included.
uint64_t parse_bytes(const std::string& text);

// --gpu-memory: "0.9" (a decimal fraction: a share of the GPU's memory) or "20GiB" (bytes). One of the two is
// 0. Throws std::runtime_error for anything else.
struct GpuMemory {
  uint64_t bytes = 0;
  double share = 0;
};
GpuMemory parse_gpu_memory(const std::string& text);

}  // namespace tramontane
