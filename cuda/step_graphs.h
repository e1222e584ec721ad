// StepGraphs: steps that come again and again, captured into CUDA graphs and replayed as they are. A step is
// known by its key: everything that a launch geometry may depend on. All else lies in device memory
// (decision 4), so a replay is never patched.
//
// The first step of a key runs eagerly, the second is captured, later ones are replayed. Each operation of a
// step says what it is about to launch; a replay only compares that with what was captured, and a difference
// is a broken invariant. A key whose graph finds no memory stays eager. Engine thread only.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "cuda/launch.h"

struct CUgraphExec_st;

namespace tramontane::cuda {

class StepGraphs {
 public:
  struct Key {
    const void* batch = nullptr;  // where the step's arrays are: one Batch of one model
    int32_t n_tokens = 0, n_logits = 0, max_kv = 0;
    auto operator<=>(const Key&) const = default;
  };

  StepGraphs() = default;
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // Further keys run eagerly.
  void keep_at_most(size_t keys) { most_ = keys; }

  // Brackets a step whose operations are queued on `stream`; without key the step runs eagerly.
  void begin(Stream stream, const std::optional<Key>& key);
  void end(Stream stream);
  // An operation of the step: its fingerprint (name, shapes and addresses), and what launches it. A capture
  // keeps `launch` until end(), in case there is no memory for the graph.
  template <typename Launch>
  void run(uint64_t fingerprint, const Launch& launch) {
    if (mode_ == Mode::replay) return compare(fingerprint);
    launch();
    if (mode_ == Mode::capture) keep(fingerprint, launch);
  }
  bool is_capturing() const { return mode_ == Mode::capture; }

  int n_graphs() const;
  uint64_t n_replays() const { return n_replays_; }
  // Keys that run eagerly because there was no memory for their graph.
  int n_refused() const { return n_refused_; }
  // By how much the device's free memory fell while the first kMeasured graphs were made, once they are;
  // whatever other programs took meanwhile counts in.
  static constexpr int kMeasured = 8;
  std::optional<uint64_t> measured_bytes() const {
    return n_measured_ < kMeasured ? std::nullopt : std::optional(measured_bytes_);
  }

 private:
  enum class Mode { eager, capture, replay };
  struct Step {
    CUgraphExec_st* graph = nullptr;  // null: seen, not captured yet
    bool refused = false;             // there was no memory for a graph
    std::vector<uint64_t> operations;
  };
  void forget_all();
  void compare(uint64_t fingerprint);
  void keep(uint64_t fingerprint, std::function<void()> launch);
  void capture(Stream stream);
  bool make_graph(Stream stream);

  std::map<Key, Step> steps_;
  uint64_t releases_ = 0;  // device_releases() that steps_ is up to date with
  Mode mode_ = Mode::eager;
  Step* step_ = nullptr;                         // of capture and replay
  size_t position_ = 0;                          // operations of the replayed step compared so far
  std::vector<std::function<void()>> launches_;  // of the step that is captured
  uint64_t n_replays_ = 0;
  int n_refused_ = 0;
  size_t most_ = SIZE_MAX;
  int n_measured_ = 0;
  uint64_t measured_bytes_ = 0;
};

// A running fingerprint: FNV-1a over 64-bit words.
class Fingerprint {
 public:
  explicit Fingerprint(const char* name) { text(name); }
  Fingerprint& add(uint64_t word) {
    hash_ = (hash_ ^ word) * 0x100000001b3u;
    return *this;
  }
  Fingerprint& add(const void* address) { return add(reinterpret_cast<uint64_t>(address)); }
  uint64_t value() const { return hash_; }

 private:
  void text(const char* name) {
    for (; *name != 0; ++name) add(static_cast<uint64_t>(*name));
  }
  uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace tramontane::cuda
