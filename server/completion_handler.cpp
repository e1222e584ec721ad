#include "server/completion_handler.h"

#include <algorithm>
#include <memory>

#include "server/answer.h"
#include "server/generation_set.h"
#include "server/json_body.h"
#include "server/openai_response.h"
#include "server/sse.h"

namespace tramontane {
namespace {

using std::chrono::milliseconds;

// How soon a vanished client, or the end of the server, is noticed.
constexpr milliseconds kPoll{100};

std::vector<std::vector<int32_t>> prompts_of(const HttpRequest& request, const ParsedRequest& parsed,
                                             const ParameterLimits& limits, const ServedModel& model) {
  if (parsed.endpoint == Endpoint::completions)
    return encode_prompts(parsed.prompt, *model.tokenizer, limits);
  return {encode_chat(model.chat_template.get(), request.body).ids};
}

RequestError shutting_down() {
  return RequestError(503, "server_error", "", "The server is shutting down.", "shutting_down");
}

// One request in flight: what both forms of answer need.
struct Run {
  Run(const HttpRequest& request, const ParsedRequest& parsed, const ParameterLimits& limits,
      const ServedModel& model, ServerState& server_state)
      : Run(request, parsed, limits, model, server_state, prompts_of(request, parsed, limits, model)) {}
  Run(const HttpRequest& request, const ParsedRequest& parsed, const ParameterLimits& limits,
      const ServedModel& model, ServerState& server_state, const std::vector<std::vector<int32_t>>& prompts)
      : state(server_state),
        in_flight(server_state),
        record(request.record),
        answer(*model.tokenizer, parsed, prompts),
        builder(parsed.endpoint, parsed.output, model, parsed.n, prompts),
        generations(*model.engine, generate_requests(parsed, prompts, limits, request.id, request.key_salt)) {
  }

  // The next event into the answer. Returns the choice it changed, or nothing when none came within kPoll.
  std::optional<int32_t> step();
  // Fills the log record; `finish` says how it ended.
  void conclude(const std::string& finish);

  ServerState& state;
  const ServerState::InFlight in_flight;
  const std::shared_ptr<RequestRecord> record;
  Answer answer;
  const ResponseBuilder builder;
  GenerationSet generations;
};

std::optional<int32_t> Run::step() {
  if (state.aborting) throw shutting_down();
  const auto next = generations.next(kPoll);
  if (!next) return std::nullopt;
  const int32_t changed = answer.accept(next->prompt, next->event);
  if (answer.choice(changed).stopped_by_string())
    generations.cancel_sequence(next->prompt, next->event.index);
  return changed;
}

void Run::conclude(const std::string& finish) {
  record->prompt_tokens = answer.prompt_tokens();
  record->completion_tokens = answer.completion_tokens();
  record->finish = finish;
  if (!generations.done()) return;
  const RequestTimings timings = generations.timings();
  record->cached_tokens = timings.cached_tokens;
  record->queue_s = timings.queue_s;
  record->prefill_s = timings.prefill_s;
  record->decode_s = timings.decode_s;
}

Usage usage_of(const Run& run) {
  return {run.answer.prompt_tokens(), run.answer.completion_tokens(),
          run.generations.timings().cached_tokens};
}

std::string in_milliseconds(double seconds) {
  return std::to_string(static_cast<int64_t>(seconds * 1000.0 + 0.5));
}

HttpResponse whole_answer(const HttpRequest& request, Run& run) {
  auto next_look = std::chrono::steady_clock::now() + kPoll;
  while (!run.generations.done()) {
    try {
      if (const auto changed = run.step()) run.answer.check(*changed);
    } catch (const RequestError& error) {
      run.conclude(error.what());
      throw;
    }
    if (std::chrono::steady_clock::now() < next_look) continue;
    next_look = std::chrono::steady_clock::now() + kPoll;
    if (request.client_gone()) {
      run.conclude("client gone");
      throw RequestError(499, "invalid_request_error", "", "The client closed the connection.");
    }
  }
  run.conclude(run.answer.finish_summary());
  HttpResponse response;
  response.body = to_body(run.builder.whole(run.answer.take_choices(), usage_of(run)));
  const RequestTimings timings = run.generations.timings();
  response.headers = {{"x-queue-ms", in_milliseconds(timings.queue_s)},
                      {"x-prefill-ms", in_milliseconds(timings.prefill_s)},
                      {"x-decode-ms", in_milliseconds(timings.decode_s)}};
  return response;
}

// The chunks of one stream, in order: role (chat), pieces, finish; each choice by itself.
class ChunkWriter {
 public:
  ChunkWriter(Run& run, Endpoint endpoint, SseWriter& sse)
      : run_(run), chat_(endpoint == Endpoint::chat), sse_(sse), started_(run.answer.n_choices()) {}

  void write(int32_t index) {
    ChoiceAssembler& choice = run_.answer.choice(index);
    const auto at = static_cast<size_t>(index);
    if (closed(index)) return;
    if (!started_[at].role && chat_) sse_.data(run_.builder.role_chunk(index));
    started_[at].role = true;
    if (choice.has_text() || (choice.finished() && choice.has_tokens())) {
      sse_.data(run_.builder.piece_chunk(index, choice.take(), !started_[at].piece));
      started_[at].piece = true;
    }
    if (!choice.finished()) return;
    sse_.data(run_.builder.finish_chunk(index, choice.finish()));
    started_[at].closed = true;
  }
  bool closed(int32_t index) const { return started_[static_cast<size_t>(index)].closed; }

 private:
  struct Progress {
    bool role = false, piece = false, closed = false;
  };
  Run& run_;
  const bool chat_;
  SseWriter& sse_;
  std::vector<Progress> started_;
};

void stream_events(Run& run, Endpoint endpoint, bool include_usage, SseWriter& sse) {
  ChunkWriter chunks(run, endpoint, sse);
  auto next_look = std::chrono::steady_clock::now() + kPoll;
  while (!run.generations.done()) {
    if (const auto changed = run.step()) {
      run.answer.check(*changed);
      if (run.answer.ready(*changed)) chunks.write(*changed);
    }
    const auto now = std::chrono::steady_clock::now();
    sse.ping_if_quiet(now);
    if (now < next_look) continue;
    next_look = now + kPoll;
    if (!sse.alive()) return;
  }
  if (include_usage) sse.data(run.builder.usage_chunk(usage_of(run)));
  sse.done();
}

void stream_answer(Run& run, Endpoint endpoint, bool include_usage, ByteSink& sink) {
  SseWriter sse(sink);
  sse.ping();
  try {
    stream_events(run, endpoint, include_usage, sse);
    run.conclude(sse.alive() || run.generations.done() ? run.answer.finish_summary() : "client gone");
  } catch (const RequestError& error) {
    sse.data(error_object(error));
    run.conclude(error.what());
  } catch (const std::exception& error) {
    sse.data(error_object(
        RequestError(500, "server_error", "", "The server had an error while answering.", "internal_error")));
    run.conclude(error.what());
  }
}

}  // namespace

HttpResponse handle_completion(const HttpRequest& request, const ParsedRequest& parsed,
                               const ParameterLimits& limits, const ServedModel& model, ServerState& state) {
  const auto run = std::make_shared<Run>(request, parsed, limits, model, state);
  HttpResponse response;
  if (parsed.output.stream) {
    response.content_type = "text/event-stream; charset=utf-8";
    response.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    response.stream = [run, endpoint = parsed.endpoint, include_usage = parsed.output.include_usage](
                          ByteSink& sink) { stream_answer(*run, endpoint, include_usage, sink); };
  } else {
    response = whole_answer(request, *run);
  }
  if (!parsed.ignored.empty()) response.headers.emplace_back("X-Ignored-Params", header_list(parsed.ignored));
  return response;
}

std::string header_list(const std::vector<std::string>& names) {
  constexpr size_t kMostNames = 32, kLongestName = 64;
  std::string list;
  for (size_t i = 0; i < std::min(names.size(), kMostNames); ++i) {
    std::string name = names[i].substr(0, kLongestName);
    for (char& c : name) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         c == '_' || c == '-' || c == '.';
      if (!plain) c = '?';
    }
    list += (i == 0 ? "" : ", ") + name;
  }
  if (names.size() > kMostNames) list += ", ...";
  return list;
}

}  // namespace tramontane
