// Stream capture and CUDA graphs.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "tests/cuda_emulator/runtime/runtime.h"

using namespace tramontane::emulator;

namespace {

Graph& graph_of(cudaGraph_t handle) {
  require(handle != nullptr, "no graph");
  return *reinterpret_cast<Graph*>(handle);
}
GraphExec& exec_of(cudaGraphExec_t handle) {
  require(handle != nullptr, "no executable graph");
  return *reinterpret_cast<GraphExec*>(handle);
}

}  // namespace

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return api([&](Runtime& runtime) { runtime.streams.begin_capture(runtime.streams.get(stream), mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  return api([&](Runtime& runtime) {
    *graph =
        reinterpret_cast<cudaGraph_t>(runtime.streams.end_capture(runtime.streams.get(stream)).release());
  });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return api([&](Runtime& runtime) {
    const Stream& s = runtime.streams.get(stream);
    *status = !s.capture           ? cudaStreamCaptureStatusNone
              : s.capture->invalid ? cudaStreamCaptureStatusInvalidated
                                   : cudaStreamCaptureStatusActive;
  });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(capture_mode_of_thread(), *mode);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  return api([&](Runtime& runtime) {
    auto made = std::make_unique<GraphExec>();
    made->graph = graph_of(graph);
    made->bytes = options().graph_memory;
    runtime.graph_bytes += made->bytes;
    *exec = reinterpret_cast<cudaGraphExec_t>(made.release());
  });
}
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
  return cudaGraphInstantiate(exec, graph, flags);
}

// Takes over what another graph of the same shape does: other arguments, grids, kernels.
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  if (info) *info = {};
  return api([&](Runtime&) {
    GraphExec& old = exec_of(exec);
    const Graph& now = graph_of(graph);
    const bool same =
        std::equal(old.graph.nodes.begin(), old.graph.nodes.end(), now.nodes.begin(), now.nodes.end(),
                   [](const GraphNode& a, const GraphNode& b) { return a.dependencies == b.dependencies; });
    if (info && !same) info->result = cudaGraphExecUpdateErrorTopologyChanged;
    require(same, "cudaGraphExecUpdate: the graphs have different shapes", cudaErrorGraphExecUpdateFailure);
    old.graph = now;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return api([&](Runtime& runtime) { runtime.streams.launch(exec_of(exec), runtime.streams.get(stream)); });
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t) {
  return api([&](Runtime&) { exec_of(exec); });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, std::size_t* count) {
  return api([&](Runtime&) {
    require(nodes == nullptr, "the emulator tells how many nodes there are, not which",
            cudaErrorNotSupported);
    *count = graph_of(graph).nodes.size();
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return api([&](Runtime&) { delete &graph_of(graph); });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return api([&](Runtime& runtime) {
    runtime.graph_bytes -= exec_of(exec).bytes;
    delete &exec_of(exec);
  });
}

}  // extern "C"
