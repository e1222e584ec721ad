#include "server/cli/load_model.h"

#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <stdexcept>

#include "cpu/cpu_backend.h"
#include "cuda/cublas_gemm.h"
#include "cuda/cuda_backend.h"
#include "engine/memory_plan.h"
#include "server/cli/load_display.h"
#include "server/cli/load_tokenizer.h"
#include "tokenizer/chat_template.h"

namespace tramontane {
namespace {

std::string name_of_path(const std::string& model) {
  // "models/mistral/" has an empty last component; a file goes without its suffix: dots belong to names
  // ("…-v0.3").
  std::filesystem::path path = std::filesystem::weakly_canonical(model);
  return path.extension() == ".gguf" ? path.stem().string() : path.filename().string();
}

// FNV-1a: a fingerprint that names model, format and backend must be stable from run to run, which std::hash
// does not promise.
std::string fingerprint(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const unsigned char c : text) hash = (hash ^ c) * 0x100000001b3u;
  return fmt::format("fp_{:012x}", hash >> 16);
}

std::shared_ptr<const Tokenizer> tokenizer_of(const TokenizerSource& source, const std::string& path) {
  if (!path.empty()) return load_tokenizer(path);
  if (auto own = own_tokenizer(source)) return own;
  throw std::runtime_error("the checkpoint has no tokenizer: give --tokenizer FILE");
}

std::shared_ptr<const ChatTemplate> make_chat_template(const std::shared_ptr<const Tokenizer>& tokenizer,
                                                       const std::string& name) {
  const auto format = name.empty() ? guess_chat_format(*tokenizer) : parse_chat_format(name);
  if (!name.empty() && !format) throw std::runtime_error("--chat-template: unknown format '" + name + "'");
  return format ? std::make_shared<const ChatTemplate>(tokenizer, *format) : nullptr;
}

void check_vocabulary(const Tokenizer& tokenizer, const ModelConfig& config) {
  if (tokenizer.vocab_size() <= config.vocab_size) return;
  throw std::runtime_error(
      fmt::format("the tokenizer has {} pieces, the model {} embeddings: they do not belong together",
                  tokenizer.vocab_size(), config.vocab_size));
}

// Whether --backend leaves the choice to what is there, and what else speaks against CUDA.
bool may_be_cuda(const ModelOptions& options, std::string& why_not) {
  if (options.backend == "cpu") return false;
  if (options.arithmetic == "f32") why_not = "--arithmetic f32 runs on the CPU";
  if (!options.cpu_kernels.empty()) why_not = "--cpu-kernels is given";
  return why_not.empty();
}

}  // namespace

BackendChoice choose_backend(const ModelOptions& options, const std::function<void(const Backend&)>& fits) {
  check_consistent(options);
  BackendChoice choice;
  try {
    if (may_be_cuda(options, choice.why_not_cuda)) {
      const GpuMemory memory = parse_gpu_memory(options.gpu_memory);
      choice.backend =
          make_cuda_backend({.device = options.device,
                             .memory_bytes = memory.bytes,
                             .memory_share = memory.share,
                             .cublas_rows = options.prefill_gemm == "cublas" ? cuda::kCublasRows : 0});
      if (fits) fits(*choice.backend);
      return choice;
    }
  } catch (const std::runtime_error& error) {
    if (options.backend == "cuda") throw std::runtime_error(std::string("--backend cuda: ") + error.what());
    choice.why_not_cuda = error.what();
  }
  if (options.prefill_gemm != "own")
    throw std::runtime_error("--prefill-gemm " + options.prefill_gemm +
                             " needs a GPU: " + choice.why_not_cuda);
  choice.backend = make_cpu_backend(
      {.threads = options.threads, .kernels = options.cpu_kernels, .f32 = options.arithmetic == "f32"});
  if (fits) fits(*choice.backend);
  return choice;
}

EngineOptions engine_options(const ModelOptions& options) {
  EngineOptions engine;
  engine.max_model_len = options.max_model_len;
  engine.max_sequences = options.max_sequences;
  engine.step_tokens = options.step_tokens;
  engine.kv_cache_bytes = options.kv_cache_bytes;
  engine.prefix_cache = options.prefix_cache;
  return engine;
}

LoadedModel load_model(const ModelOptions& options, const EngineOptions& engine, const std::string& id,
                       const LoadProgress& progress) {
  const auto report = [&](const std::string& what, double share) {
    if (progress) progress(what, share);
  };
  report("opening the checkpoint", 0);
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::open(options.model);

  LoadedModel model;
  ServedModel& served = model.served;
  served.id = id.empty() ? name_of_path(options.model) : id;
  served.created = static_cast<int64_t>(std::time(nullptr));
  served.config = checkpoint->config();
  served.defaults = checkpoint->generation_defaults();
  report("reading the tokenizer", 0);
  served.tokenizer = tokenizer_of(checkpoint->tokenizer(), options.tokenizer);
  check_vocabulary(*served.tokenizer, served.config);
  served.chat_template = make_chat_template(served.tokenizer, options.chat_template);

  std::string memory;
  BackendChoice choice = choose_backend(options, [&](const Backend& backend) {
    memory = plan_memory(backend, *checkpoint, engine).to_string();
  });
  model.backend = std::move(choice.backend);
  fmt::print(stderr, "{}: {}, {}, chat encoding {}\nbackend: {}{}\nmemory: {}\n", served.id,
             checkpoint->format(), format_bytes(checkpoint->weight_bytes()),
             served.chat_template ? name_of(served.chat_template->format())
                                  : "none (chat requests are refused; see --chat-template)",
             model.backend->description(),
             choice.why_not_cuda.empty() ? "" : "; not cuda: " + choice.why_not_cuda, memory);
  LoadDisplay display;
  model.engine =
      std::make_unique<Engine>(*model.backend, *checkpoint, engine, [&](uint64_t done, uint64_t total) {
        display.update(done, total);
        report("loading weights", total == 0 ? 1 : static_cast<double>(done) / static_cast<double>(total));
      });
  display.finish(checkpoint->weight_bytes());
  served.engine = model.engine.get();
  served.system_fingerprint =
      fingerprint(served.id + "\n" + checkpoint->format() + "\n" + model.backend->description());
  return model;
}

}  // namespace tramontane
