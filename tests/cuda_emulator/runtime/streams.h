// Streams, events and stream capture. Work is kept with its dependencies and performed at seeded moments that
// these allow: as late as a synchronisation lets it, in any order among streams. A missing synchronisation
// shows as wrong data.
#pragma once

#include <driver_types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/cuda_emulator/types.h"

namespace tramontane::emulator {

struct Operation {
  std::function<void()> run;
  std::vector<std::shared_ptr<Operation>> dependencies;
  bool done = false;
};

// A CUDA graph: nodes in an order that their dependencies allow.
struct GraphNode {
  std::function<void()> run;
  std::vector<std::size_t> dependencies;
};
struct Graph {
  std::vector<GraphNode> nodes;
};
struct GraphExec {
  Graph graph;
  u64 bytes = 0;                           // of device memory, as GRAPH_MEMORY says
  std::shared_ptr<Operation> last_launch;  // a graph does not run beside itself
};

struct Capture {
  Graph graph;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  u64 id = 0;
  bool invalid = false;
  bool ended = false;
};

struct Stream {
  unsigned flags = 0;
  int priority = 0;
  std::shared_ptr<Operation> last;
  std::shared_ptr<Capture> capture;       // null: not capturing
  bool is_origin = false;                 // the capture began here
  std::vector<std::size_t> capture_last;  // nodes that the next one depends on
};

struct Event {
  unsigned flags = 0;
  std::shared_ptr<Operation> recorded;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
  std::shared_ptr<Capture> capture;  // recorded in a capturing stream
  std::vector<std::size_t> capture_nodes;
};

// Not thread-safe: guarded by the runtime's mutex. Errors are thrown as CallError.
class Streams {
 public:
  Streams();

  Stream* create(unsigned flags, int priority);
  void destroy(Stream* stream);
  // The stream of a handle: the default ones too. Throws for a handle that is none.
  Stream& get(cudaStream_t handle);
  Event* create_event(unsigned flags);
  void destroy_event(Event* event);
  Event& get(cudaEvent_t handle);

  // Puts work into a stream, or a node into the graph that it captures.
  void submit(Stream& stream, std::function<void()> work);
  void record(Event& event, Stream& stream);
  void wait(Stream& stream, const Event& event);
  void synchronize(Stream& stream);
  void synchronize(const Event& event);
  void synchronize_all();
  // May perform some work, as time would.
  bool is_done(const std::shared_ptr<Operation>& operation);

  void begin_capture(Stream& stream, cudaStreamCaptureMode mode);
  std::unique_ptr<Graph> end_capture(Stream& stream);
  void launch(GraphExec& exec, Stream& stream);
  // Refuses a call that CUDA holds for unsafe during a capture, and spoils the captures under way that forbid
  // it: those of this thread, and of others in the global mode. CUDA's manual names cudaMalloc and lists no
  // others; these are all that allocate or free, or that ask about or wait for work elsewhere.
  void forbid_in_capture(const char* call);

  // Drops all work: after a fault, and at a reset.
  void abandon();
  bool in_callback() const { return in_callback_ == std::this_thread::get_id(); }
  void run_callback(const std::function<void()>& callback);

 private:
  bool is_legacy(const Stream& stream) const { return &stream == &legacy_; }
  std::shared_ptr<Operation> enqueue(Stream& stream, std::function<void()> work,
                                     std::vector<std::shared_ptr<Operation>> also);
  void complete(const std::shared_ptr<Operation>& operation);
  void perform(Operation& operation);
  void progress();
  void make_time_pass();
  void add_node(Stream& stream, std::function<void()> work);
  void check_joined(const Capture& capture, const Stream& origin) const;

  Stream legacy_;
  Stream per_thread_;
  std::set<std::unique_ptr<Stream>> streams_;
  std::set<std::unique_ptr<Event>> events_;
  std::vector<std::shared_ptr<Operation>> pending_;
  std::vector<std::weak_ptr<Capture>> captures_;
  std::mt19937_64 random_;
  std::thread::id in_callback_;
  u64 captures_begun_ = 0;
};

// What cudaThreadExchangeStreamCaptureMode sets.
cudaStreamCaptureMode& capture_mode_of_thread();

// Runs a graph's nodes in a seeded order that their dependencies allow.
void run_graph(const Graph& graph, std::mt19937_64& random);

}  // namespace tramontane::emulator
