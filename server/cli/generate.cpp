#include "server/cli/generate.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>

#include "server/cli/load_model.h"
#include "server/cli/log_setup.h"
#include "server/cli/signals.h"
#include "tokenizer/stream_decoder.h"

namespace tramontane {
namespace {

std::string read_prompt(const std::string& prompt) {
  if (prompt != "-") return prompt;
  return {std::istreambuf_iterator<char>(std::cin), {}};
}

std::vector<int32_t> encode_prompt(const GenerateOptions& options, const std::string& prompt,
                                   const ServedModel& model) {
  nlohmann::json messages = nlohmann::json::array();
  if (!options.system.empty()) messages.push_back({{"role", "system"}, {"content", options.system}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  std::string request;
  try {
    request = nlohmann::json{{"messages", messages}}.dump();
  } catch (const nlohmann::json::exception&) {
    throw std::runtime_error("--prompt: not valid UTF-8");
  }
  if (!options.raw) {
    if (!model.chat_template)
      throw std::runtime_error("no chat template for this vocabulary: give --chat-template, or --raw");
    return model.chat_template->encode(request).ids;
  }
  std::vector<int32_t> ids;
  if (model.tokenizer->adds_bos()) ids.push_back(model.tokenizer->bos_id());
  const std::vector<int32_t> text = model.tokenizer->encode(prompt);
  ids.insert(ids.end(), text.begin(), text.end());
  if (ids.empty()) throw std::runtime_error("--prompt: nothing to continue");
  return ids;
}

uint64_t fresh_seed() {
  std::random_device random;
  return (uint64_t{random()} << 32) | random();
}

SamplingParams sampling_of(const GenerateOptions& options, const GenerationDefaults& defaults, int32_t room) {
  SamplingParams sampling;
  sampling.temperature = options.temperature.value_or(defaults.temperature.value_or(1.0f));
  sampling.top_p = options.top_p.value_or(defaults.top_p.value_or(1.0f));
  sampling.top_k = options.top_k.value_or(defaults.top_k.value_or(0));
  sampling.min_p = options.min_p.value_or(0.0f);
  sampling.repetition_penalty =
      options.repetition_penalty.value_or(defaults.repetition_penalty.value_or(1.0f));
  sampling.seed = options.seed ? *options.seed : fresh_seed();
  sampling.max_tokens = options.max_tokens > 0 ? options.max_tokens : room;
  sampling.ignore_eos = options.ignore_eos;
  return sampling;
}

void print(const std::string& text) {
  if (text.empty()) return;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw std::runtime_error("cannot write to standard output");
  }
}

// Prints the answer as it comes; returns the number of tokens.
int stream_answer(Generation& generation, StreamDecoder decoder, const Signals& signals) {
  int tokens = 0;
  while (true) {
    // A waiting signal is noticed within a tenth of a second even while a long prompt is computed.
    const auto event = generation.events.pop_for(std::chrono::milliseconds(100));
    if (signals.poll()) generation.cancelled = true;
    if (!event) continue;
    if (event->kind == TokenEvent::Kind::token && !decoder.stopped()) {
      ++tokens;
      print(decoder.append(event->token));
      if (decoder.stopped()) generation.cancelled = true;
    }
    if (event->kind != TokenEvent::Kind::finished) continue;
    print(decoder.finish() + "\n");
    if (event->finish == FinishReason::error)
      throw std::runtime_error("the engine failed; its message is above");
    return tokens;
  }
}

}  // namespace

int run_generate(const GenerateOptions& options) {
  check_consistent(options.model);
  set_up_logging("warn", "text");
  const Signals signals;
  const std::string prompt = read_prompt(options.prompt);
  const LoadedModel model =
      load_model(options.model, engine_options(options.model), {}, [&](const std::string&, double) {
        if (signals.poll()) throw std::runtime_error("interrupted");
      });
  GenerateRequest request;
  request.id = "generate";
  request.prompt = encode_prompt(options, prompt, model.served);
  const auto n_prompt = static_cast<int32_t>(request.prompt.size());
  // At least one: a prompt that leaves no room is then refused by the engine, with both numbers.
  request.sampling =
      sampling_of(options, model.served.defaults, std::max(1, model.engine->max_model_len() - n_prompt));
  const auto generation = model.engine->submit(request);
  const int tokens =
      stream_answer(*generation, StreamDecoder(*model.served.tokenizer, options.stop), signals);
  const RequestTimings& t = generation->timings;
  // The first token comes out of the prefill.
  const double decoded = tokens > 1 && t.decode_s > 0 ? (tokens - 1) / t.decode_s : 0;
  fmt::print(stderr,
             "{} prompt tokens in {:.2f} s, {} answer tokens in {:.2f} s ({:.1f} tokens/s), seed {}\n",
             n_prompt, t.prefill_s, tokens, t.decode_s, decoded, request.sampling.seed);
  return 0;
}

}  // namespace tramontane
