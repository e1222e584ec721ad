#include "cuda/step_graphs.h"

#include <algorithm>
#include <utility>

#include "cuda/check.cuh"
#include "cuda/device_buffer.h"
#include "engine/backend/check.h"

namespace tramontane::cuda {
namespace {

size_t device_free_bytes() {
  size_t free = 0, total = 0;
  CUDA_CHECK(cudaMemGetInfo(&free, &total), "a decode step");
  return free;
}

}  // namespace

StepGraphs::~StepGraphs() {
  forget_all();
}

void StepGraphs::forget_all() {
  for (auto& [key, step] : steps_) {
    if (step.graph != nullptr) cudaGraphExecDestroy(step.graph);
  }
  steps_.clear();
}

int StepGraphs::n_graphs() const {
  int count = 0;
  for (const auto& [key, step] : steps_) count += step.graph != nullptr;
  return count;
}

void StepGraphs::begin(Stream stream, const std::optional<Key>& key) {
  CHECK(mode_ == Mode::eager, "a step begins before the last one ended");
  if (const uint64_t releases = device_releases(); releases != releases_) {
    forget_all();  // some buffer is gone, and graphs may name it
    releases_ = releases;
  }
  if (!key) return;
  const auto found = steps_.find(*key);
  if (found == steps_.end()) {
    if (steps_.size() < most_) steps_.try_emplace(*key);
    return;
  }
  if (found->second.refused) return;
  step_ = &found->second;
  position_ = 0;
  if (step_->graph != nullptr) {
    mode_ = Mode::replay;
    ++n_replays_;
    CUDA_CHECK(cudaGraphLaunch(step_->graph, stream), "a decode step");
    return;
  }
  mode_ = Mode::capture;
  step_->operations.clear();
  launches_.clear();
  CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "a decode step");
}

void StepGraphs::keep(uint64_t fingerprint, std::function<void()> launch) {
  step_->operations.push_back(fingerprint);
  launches_.push_back(std::move(launch));
}

void StepGraphs::compare(uint64_t fingerprint) {
  CHECK_LT(position_, step_->operations.size());
  CHECK(step_->operations[position_] == fingerprint,
        "operation " + std::to_string(position_) + " of a replayed step is not the one that was captured");
  ++position_;
}

void StepGraphs::end(Stream stream) {
  if (mode_ == Mode::capture) capture(stream);
  if (mode_ == Mode::replay) CHECK_EQ(position_, step_->operations.size());
  mode_ = Mode::eager;
  step_ = nullptr;
}

void StepGraphs::capture(Stream stream) {
  // Asked for only around the first graphs: the call may wait for the driver.
  const bool measures = n_measured_ < kMeasured;
  const size_t before = measures ? device_free_bytes() : 0;
  const bool made = make_graph(stream);
  if (!made) {
    // Nothing of the step has run. How much memory graphs take is an estimate: too little costs speed, no
    // answers.
    step_->refused = true;
    ++n_refused_;
    for (const auto& launch : launches_) launch();
  }
  launches_.clear();
  if (!measures || !made) return;
  measured_bytes_ += before - std::min(before, device_free_bytes());
  ++n_measured_;
}

// Makes the captured step's graph and launches it. False when there is no memory for it.
bool StepGraphs::make_graph(Stream stream) {
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamEndCapture(stream, &graph), "a decode step");
  const cudaError_t made = cudaGraphInstantiate(&step_->graph, graph, 0);
  cudaGraphDestroy(graph);
  if (made == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    step_->graph = nullptr;
    return false;
  }
  check_call(made, "cudaGraphInstantiate", "a decode step");
  // The first launch is what brings the graph to the device.
  const cudaError_t launched = cudaGraphLaunch(step_->graph, stream);
  if (launched == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    cudaGraphExecDestroy(std::exchange(step_->graph, nullptr));
    return false;
  }
  check_call(launched, "cudaGraphLaunch", "a decode step");
  return true;
}

}  // namespace tramontane::cuda
