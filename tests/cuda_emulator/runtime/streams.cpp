#include "tests/cuda_emulator/runtime/streams.h"

#include <cuda_runtime_api.h>

#include <algorithm>

#include "tests/cuda_emulator/runtime/runtime.h"

namespace tramontane::emulator {
namespace {

constexpr std::size_t kMostPending = 1 << 14;

bool undone(const std::shared_ptr<Operation>& operation) {
  return operation && !operation->done;
}

}  // namespace

Streams::Streams() : random_(options().seed) {
  per_thread_.flags = cudaStreamNonBlocking;
}

Stream* Streams::create(unsigned flags, int priority) {
  auto stream = std::make_unique<Stream>();
  stream->flags = flags;
  stream->priority = priority;
  Stream* handle = stream.get();
  streams_.insert(std::move(stream));
  return handle;
}

void Streams::destroy(Stream* stream) {
  const auto it =
      std::find_if(streams_.begin(), streams_.end(), [&](const auto& s) { return s.get() == stream; });
  require(it != streams_.end(), "cudaStreamDestroy: no such stream", cudaErrorInvalidResourceHandle);
  streams_.erase(it);  // what is in it runs on
}

Stream& Streams::get(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return legacy_;
  if (handle == cudaStreamPerThread) return per_thread_;
  for (const auto& stream : streams_)
    if (reinterpret_cast<cudaStream_t>(stream.get()) == handle) return *stream;
  refuse(cudaErrorInvalidResourceHandle, "no such stream");
}

Event* Streams::create_event(unsigned flags) {
  auto event = std::make_unique<Event>();
  event->flags = flags;
  Event* handle = event.get();
  events_.insert(std::move(event));
  return handle;
}

void Streams::destroy_event(Event* event) {
  const auto it =
      std::find_if(events_.begin(), events_.end(), [&](const auto& e) { return e.get() == event; });
  require(it != events_.end(), "cudaEventDestroy: no such event", cudaErrorInvalidResourceHandle);
  events_.erase(it);
}

Event& Streams::get(cudaEvent_t handle) {
  for (const auto& event : events_)
    if (reinterpret_cast<cudaEvent_t>(event.get()) == handle) return *event;
  refuse(cudaErrorInvalidResourceHandle, "no such event");
}

// The legacy default stream waits for all blocking streams, and they for it.
std::shared_ptr<Operation> Streams::enqueue(Stream& stream, std::function<void()> work,
                                            std::vector<std::shared_ptr<Operation>> also) {
  auto operation = std::make_shared<Operation>();
  operation->run = std::move(work);
  also.push_back(stream.last);
  if (is_legacy(stream)) {
    for (const auto& other : streams_) {
      if (other->flags & cudaStreamNonBlocking) continue;
      if (other->capture)
        refuse(cudaErrorStreamCaptureImplicit, "work in the default stream while a blocking stream captures");
      also.push_back(other->last);
    }
  } else if (!(stream.flags & cudaStreamNonBlocking)) {
    also.push_back(legacy_.last);
  }
  for (auto& dependency : also)
    if (undone(dependency)) operation->dependencies.push_back(std::move(dependency));
  stream.last = operation;
  pending_.push_back(operation);
  make_time_pass();
  return operation;
}

void Streams::make_time_pass() {
  std::erase_if(pending_, [](const auto& operation) { return operation->done; });
  switch (options().streams) {
    case StreamOrder::kLate:
      break;
    case StreamOrder::kEager:
      while (!pending_.empty()) progress();
      break;
    case StreamOrder::kRandom:
      while (!pending_.empty() && random_() % 4 == 0) progress();
      break;
  }
  while (pending_.size() > kMostPending) progress();
}

// Performs one operation, any that may come next.
void Streams::progress() {
  std::shared_ptr<Operation> operation = pending_[random_() % pending_.size()];
  for (;;) {
    std::erase_if(operation->dependencies, [](const auto& d) { return d->done; });
    if (operation->dependencies.empty()) break;
    operation = operation->dependencies[random_() % operation->dependencies.size()];
  }
  if (!operation->done) perform(*operation);
  std::erase_if(pending_, [](const auto& o) { return o->done; });
}

void Streams::perform(Operation& operation) {
  operation.done = true;
  const std::function<void()> run = std::move(operation.run);
  operation.run = nullptr;
  if (run) run();
}

// Performs what an operation needs and then it, in a seeded order.
void Streams::complete(const std::shared_ptr<Operation>& operation) {
  std::vector<std::shared_ptr<Operation>> stack;
  if (undone(operation)) stack.push_back(operation);
  while (!stack.empty()) {
    const std::shared_ptr<Operation> top = stack.back();
    std::erase_if(top->dependencies, [](const auto& d) { return d->done; });
    if (top->done) {
      stack.pop_back();
    } else if (!top->dependencies.empty()) {
      stack.push_back(top->dependencies[random_() % top->dependencies.size()]);
    } else {
      stack.pop_back();
      perform(*top);
    }
  }
  make_time_pass();
}

void Streams::submit(Stream& stream, std::function<void()> work) {
  if (stream.capture) return add_node(stream, std::move(work));
  enqueue(stream, std::move(work), {});
}

void Streams::add_node(Stream& stream, std::function<void()> work) {
  require(!stream.capture->invalid, "work for a stream whose capture was spoilt",
          cudaErrorStreamCaptureInvalidated);
  std::vector<GraphNode>& nodes = stream.capture->graph.nodes;
  nodes.push_back({std::move(work), stream.capture_last});
  stream.capture_last = {nodes.size() - 1};
}

void Streams::record(Event& event, Stream& stream) {
  event.capture = stream.capture;
  event.capture_nodes = stream.capture_last;
  if (stream.capture) return;
  auto time = std::make_shared<std::chrono::steady_clock::time_point>();
  event.time = time;
  event.recorded = enqueue(stream, [time] { *time = std::chrono::steady_clock::now(); }, {});
}

void Streams::wait(Stream& stream, const Event& event) {
  if (event.capture) {
    require(!event.capture->ended, "wait for an event of a capture that has ended", cudaErrorCapturedEvent);
    require(!is_legacy(stream), "the default stream cannot join a capture", cudaErrorStreamCaptureImplicit);
    require(!stream.capture || stream.capture == event.capture, "wait for an event of another capture",
            cudaErrorStreamCaptureMerge);
    stream.capture = event.capture;
    for (const std::size_t node : event.capture_nodes)
      if (std::find(stream.capture_last.begin(), stream.capture_last.end(), node) ==
          stream.capture_last.end())
        stream.capture_last.push_back(node);
    return;
  }
  require(!stream.capture, "a capturing stream waits for an event from outside of the capture",
          cudaErrorStreamCaptureIsolation);
  if (event.recorded) enqueue(stream, nullptr, {event.recorded});
}

void Streams::synchronize(Stream& stream) {
  if (stream.capture) {
    stream.capture->invalid = true;
    refuse(cudaErrorStreamCaptureUnsupported, "synchronisation with a stream that captures");
  }
  complete(stream.last);
  if (!is_legacy(stream)) return;
  for (const auto& other : streams_)
    if (!(other->flags & cudaStreamNonBlocking)) complete(other->last);
}

void Streams::synchronize(const Event& event) {
  complete(event.recorded);
}

void Streams::synchronize_all() {
  while (!pending_.empty()) {
    progress();
    std::erase_if(pending_, [](const auto& operation) { return operation->done; });
  }
}

bool Streams::is_done(const std::shared_ptr<Operation>& operation) {
  if (undone(operation) && !pending_.empty() && random_() % 2) progress();
  return !undone(operation);
}

void Streams::begin_capture(Stream& stream, cudaStreamCaptureMode mode) {
  require(!is_legacy(stream), "the default stream cannot capture", cudaErrorStreamCaptureUnsupported);
  require(!stream.capture, "the stream captures already", cudaErrorIllegalState);
  stream.capture = std::make_shared<Capture>();
  stream.capture->mode = mode;
  stream.capture->thread = std::this_thread::get_id();
  stream.capture->id = ++captures_begun_;
  stream.is_origin = true;
  stream.capture_last.clear();
  captures_.push_back(stream.capture);
}

// Every node must come before what the first stream captured last.
void Streams::check_joined(const Capture& capture, const Stream& origin) const {
  std::vector<bool> joined(capture.graph.nodes.size());
  std::vector<std::size_t> open = origin.capture_last;
  while (!open.empty()) {
    const std::size_t node = open.back();
    open.pop_back();
    if (joined[node]) continue;
    joined[node] = true;
    const auto& before = capture.graph.nodes[node].dependencies;
    open.insert(open.end(), before.begin(), before.end());
  }
  require(std::find(joined.begin(), joined.end(), false) == joined.end(),
          "captured work in another stream was not joined", cudaErrorStreamCaptureUnjoined);
}

std::unique_ptr<Graph> Streams::end_capture(Stream& stream) {
  require(stream.capture != nullptr, "the stream does not capture", cudaErrorIllegalState);
  require(stream.is_origin, "the capture began in another stream", cudaErrorStreamCaptureUnmatched);
  const std::shared_ptr<Capture> capture = stream.capture;
  const Stream origin = stream;
  stream.is_origin = false;
  capture->ended = true;
  const auto leave = [&](Stream& s) {
    if (s.capture == capture) s.capture.reset(), s.capture_last.clear();
  };
  leave(per_thread_);
  for (const auto& other : streams_) leave(*other);
  require(!capture->invalid, "the capture was spoilt", cudaErrorStreamCaptureInvalidated);
  check_joined(*capture, origin);
  return std::make_unique<Graph>(std::move(capture->graph));
}

void Streams::forbid_in_capture(const char* call) {
  const cudaStreamCaptureMode mode = capture_mode_of_thread();
  if (mode == cudaStreamCaptureModeRelaxed) return;
  bool forbidden = false;
  for (const auto& weak : captures_) {
    const auto capture = weak.lock();
    if (!capture || capture->ended || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    const bool both_global = mode == cudaStreamCaptureModeGlobal && capture->mode == mode;
    if (!both_global && capture->thread != std::this_thread::get_id()) continue;
    capture->invalid = true;
    forbidden = true;
  }
  std::erase_if(captures_, [](const auto& capture) { return capture.expired(); });
  if (forbidden) refuse(cudaErrorStreamCaptureUnsupported, std::string(call) + " while a stream captures");
}

cudaStreamCaptureMode& capture_mode_of_thread() {
  static thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  return mode;
}

void Streams::launch(GraphExec& exec, Stream& stream) {
  // The graph may be destroyed before it runs.
  auto graph = std::make_shared<Graph>(exec.graph);
  if (stream.capture) return add_node(stream, [this, graph] { run_graph(*graph, random_); });
  exec.last_launch = enqueue(stream, [this, graph] { run_graph(*graph, random_); }, {exec.last_launch});
}

void Streams::abandon() {
  for (const auto& operation : pending_) {
    operation->done = true;
    operation->run = nullptr;
    operation->dependencies.clear();
  }
  pending_.clear();
}

void Streams::run_callback(const std::function<void()>& callback) {
  in_callback_ = std::this_thread::get_id();
  callback();
  in_callback_ = {};
}

void run_graph(const Graph& graph, std::mt19937_64& random) {
  std::vector<std::size_t> missing(graph.nodes.size());
  std::vector<std::vector<std::size_t>> after(graph.nodes.size());
  std::vector<std::size_t> ready;
  for (std::size_t node = 0; node < graph.nodes.size(); ++node) {
    missing[node] = graph.nodes[node].dependencies.size();
    for (const std::size_t before : graph.nodes[node].dependencies) after[before].push_back(node);
    if (!missing[node]) ready.push_back(node);
  }
  while (!ready.empty()) {
    const std::size_t pick = random() % ready.size();
    const std::size_t node = ready[pick];
    ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(pick));
    if (graph.nodes[node].run) graph.nodes[node].run();
    for (const std::size_t next : after[node])
      if (--missing[next] == 0) ready.push_back(next);
  }
}

}  // namespace tramontane::emulator
