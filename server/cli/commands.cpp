#include "server/cli/commands.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "config/server_config.h"
#include "server/cli/compare.h"
#include "server/cli/generate.h"
#include "server/cli/inspect.h"
#include "server/cli/logits.h"
#include "server/cli/quantize.h"
#include "server/cli/serve.h"
#include "server/cli/tokenize.h"

namespace tramontane {
namespace {

Command add_serve(CLI::App& app) {
  CLI::App* command = add_command(app, "serve", "Serve a model over HTTP");
  const auto config = std::make_shared<ServerConfig>();
  add_server_options(*command, *config);
  return {command, [config] { return run_serve(*config); }};
}

Command add_generate(CLI::App& app) {
  CLI::App* command = add_command(app, "generate", "Answer one prompt on the terminal");
  const auto o = std::make_shared<GenerateOptions>();
  add_model_options(*command, o->model);
  command->add_option("--prompt", o->prompt, "What to answer; - reads it from standard input")->required();
  command->add_option("--system", o->system, "A system message before the prompt");
  command->add_flag("--raw", o->raw, "Continue the prompt as it is, without the chat template");
  command
      ->add_option("--max-tokens", o->max_tokens, "Most tokens of the answer; 0: what is left of the context")
      ->check(CLI::Range(0, INT32_MAX))
      ->capture_default_str();
  command->add_option("--temperature", o->temperature,
                      "0 takes the likeliest token; without it the checkpoint's, else 1");
  command->add_option("--top-p", o->top_p, "Sample from the likeliest tokens of this total probability");
  command->add_option("--top-k", o->top_k, "Sample from so many likeliest tokens; 0: from all");
  command->add_option("--min-p", o->min_p, "Leave out tokens less likely than this share of the likeliest");
  command->add_option("--repetition-penalty", o->repetition_penalty, "Above 1 makes seen tokens less likely");
  command->add_option("--seed", o->seed,
                      "The same seed gives the same answer; without one a fresh seed, printed at the end");
  command->add_option("--stop", o->stop, "Text that ends the answer; repeatable");
  command->add_flag("--ignore-eos", o->ignore_eos,
                    "Go on after the model's end of sequence, up to --max-tokens");
  return {command, [o] { return run_generate(*o); }};
}

Command add_tokenize(CLI::App& app) {
  CLI::App* command =
      add_command(app, "tokenize", "Turn JSON strings on standard input into arrays of ids, one a line");
  const auto o = std::make_shared<TokenizeOptions>();
  command->add_option("--tokenizer", o->tokenizer, "SentencePiece file, .gguf file or directory with one")
      ->required();
  command->add_flag("--decode", o->decode, "The other way: arrays of ids into strings");
  return {command, [o] { return run_tokenize(*o); }};
}

Command add_apply_template(CLI::App& app) {
  CLI::App* command =
      add_command(app, "apply-template",
                  "Turn chat requests on standard input into the ids the model would see, one a line");
  const auto o = std::make_shared<ApplyTemplateOptions>();
  command->add_option("--tokenizer", o->tokenizer, "SentencePiece file, .gguf file or directory with one")
      ->required();
  command->add_option("--chat-template", o->chat_template,
                      "v1, v2, v3 or chatml; without it chosen by the vocabulary");
  return {command, [o] { return run_apply_template(*o); }};
}

Command add_inspect(CLI::App& app) {
  CLI::App* command = add_command(app, "inspect", "Show what a checkpoint holds, or write one tensor as F32");
  const auto o = std::make_shared<InspectOptions>();
  command->add_option("--model", o->model, "Checkpoint: a directory or a .gguf file")->required();
  command->add_option("--dequantize", o->dequantize, "Name of the tensor to write, as in the file");
  command->add_option("--out", o->out, "Where it goes: a safetensors file");
  command->add_flag("--json", o->json, "The table as one JSON object");
  return {command, [o] { return run_inspect(*o); }};
}

Command add_logits(CLI::App& app) {
  CLI::App* command = add_command(app, "logits", "Write the FP32 logits of every position");
  const auto o = std::make_shared<LogitsOptions>();
  add_model_options(*command, o->model);
  command->add_option("--ids", o->ids, "JSON file: an array of token ids")->required();
  command->add_option("--out", o->out, "Safetensors file: `logits`, F32 [ids, vocabulary]")->required();
  return {command, [o] { return run_logits(*o); }};
}

Command add_compare(CLI::App& app) {
  CLI::App* command =
      add_command(app, "compare", "Show how far models lie from a reference: drift, changed answers, flips");
  const auto o = std::make_shared<CompareOptions>();
  command
      ->add_option("--reference", o->model.model, "Checkpoint to measure from: a directory or a .gguf file")
      ->required();
  command
      ->add_option("--candidate", o->candidates,
                   "Checkpoint to measure, of the same vocabulary; repeatable, one column each")
      ->required();
  CLI::Option* prompts = command->add_option("--prompts", o->prompts,
                                             "Prompts, one a line, or JSON lines with `prompt` or `messages` "
                                             "(.jsonl); without it the built-in ones");
  command
      ->add_option(
          "--multiple-choice", o->multiple_choice,
          "Instead of prompts: JSON lines with question, options and, if known, gold, unknown, stereotyped")
      ->excludes(prompts);
  command->add_option("--max-tokens", o->max_tokens, "Most tokens of an answer")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str();
  command
      ->add_flag("--noise-floor,!--no-noise-floor", o->noise_floor,
                 "A column for the reference in F32 arithmetic: what rounding alone changes")
      ->default_str("true");
  command->add_option("--json", o->json, "File for all figures");
  command->add_option("--html", o->html, "File for the report as one page with charts");
  command->add_option("--tokenizer", o->model.tokenizer,
                      "SentencePiece or .gguf file; without it the reference's own");
  command
      ->add_option("--chat-template", o->model.chat_template,
                   "v1, v2, v3 or chatml; without it chosen by the vocabulary")
      ->check(CLI::IsMember({"v1", "v2", "v3", "chatml"}));
  add_compute_options(*command, o->model);
  return {command, [o] { return run_compare(*o); }};
}

Command add_quantize(CLI::App& app) {
  CLI::App* command = add_command(app, "quantize", "Write a checkpoint in bitsandbytes' or MLX's format");
  const auto o = std::make_shared<QuantizeCommandOptions>();
  command
      ->add_option("--model", o->model, "Source: a directory with BF16, F16 or F32 weights, or a .gguf file")
      ->required();
  command
      ->add_option("--to", o->to,
                   "fp4, nf4 (bitsandbytes), q8, q6, q4, q3 (MLX affine) or bf16 (no quantisation)")
      ->required();
  command->add_option("--group", o->group, "MLX: weights that share a scale: 32, 64 or 128")
      ->capture_default_str();
  command->add_option("--threads", o->threads, "Threads that compute; 0: one per core")
      ->check(CLI::Range(0, 1024));
  command->add_option("--out", o->out, "Folder to write; must not exist")->required();
  return {command, [o] { return run_quantize(*o); }};
}

// For the README: what `serve` takes.
Command add_options(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("options", "Print the options of serve as the README's table")->group("");
  return {command, [&app] {
            std::fputs(options_markdown(*app.get_subcommand("serve")).c_str(), stdout);
            return 0;
          }};
}

}  // namespace

std::vector<Command> add_commands(CLI::App& app) {
  app.set_version_flag("--version", "tramontane " TRAMONTANE_VERSION);
  std::vector<Command> commands = {add_serve(app),          add_generate(app), add_tokenize(app),
                                   add_apply_template(app), add_inspect(app),  add_logits(app), add_quantize(app),
                                   add_compare(app)};
  for (const Command& command : commands) name_environment_variables(*command.app);
  commands.push_back(add_options(app));
  return commands;
}

}  // namespace tramontane
