#include "tests/bench/cuda_timing.h"

#include <algorithm>
#include <random>
#include <stdexcept>

#include "cuda/check.cuh"
#include "tests/cuda_emulator/control.h"

namespace tramontane::cuda {
namespace {

constexpr size_t kLaunches = 32;  // at least, so that one replay is far longer than its launch takes

Buffer device_bytes(size_t bytes) {
  void* data = nullptr;
  CUDA_CHECK(cudaMalloc(&data, bytes), "the benchmark's data");
  return {static_cast<std::byte*>(data), bytes, [](std::byte* p, size_t) { cudaFree(p); }};
}

int attribute(cudaDeviceAttr which) {
  int value = 0;
  CUDA_CHECK(cudaDeviceGetAttribute(&value, which, 0), "the device's limits");
  return value;
}

}  // namespace

DeviceLimits device_limits() {
  cudaDeviceProp properties{};
  CUDA_CHECK(cudaGetDeviceProperties(&properties, 0), "the device's limits");
  const double clock = 1e3 * attribute(cudaDevAttrMemoryClockRate);  // the attribute is in kHz
  return {properties.name, 2 * clock * attribute(cudaDevAttrGlobalMemoryBusWidth) / 8 / 1e9,
          static_cast<size_t>(attribute(cudaDevAttrL2CacheSize))};
}

bool is_emulator() {
  return emulator::is_emulated();
}

Buffer random_device_bytes(size_t bytes) {
  constexpr size_t kPiece = 1 << 20;
  std::vector<std::byte> piece(std::min(bytes, kPiece));
  std::mt19937 random(1);
  for (std::byte& b : piece) b = static_cast<std::byte>(random() % 0x3c);
  Buffer buffer = device_bytes(bytes);
  for (size_t at = 0; at < bytes; at += piece.size())
    CUDA_CHECK(cudaMemcpy(buffer.data() + at, piece.data(), std::min(piece.size(), bytes - at),
                          cudaMemcpyHostToDevice),
               "the benchmark's data");
  return buffer;
}

Buffer zeroed_device_bytes(size_t bytes) {
  Buffer buffer = device_bytes(bytes);
  CUDA_CHECK(cudaMemset(buffer.data(), 0, bytes), "the benchmark's data");
  return buffer;
}

Buffer device_copy(const void* host, size_t bytes) {
  Buffer buffer = device_bytes(bytes);
  CUDA_CHECK(cudaMemcpy(buffer.data(), host, bytes, cudaMemcpyHostToDevice), "the benchmark's data");
  return buffer;
}

Buffer device_integers(const std::vector<int32_t>& values) {
  return device_copy(values.data(), values.size() * sizeof(int32_t));
}

TimedGraph::TimedGraph(const Case& timed, const Launch& launch)
    : launches_((kLaunches + timed.copies - 1) / timed.copies * timed.copies) {
  CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), timed.name);
  CUDA_CHECK(cudaEventCreate(&begin_), timed.name);
  CUDA_CHECK(cudaEventCreate(&end_), timed.name);
  CUDA_CHECK(cudaDeviceSynchronize(), timed.name);
  launch(stream_, 0);  // what a first launch sets up is not part of it
  cudaGraph_t graph = nullptr;
  CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), timed.name);
  for (size_t i = 0; i < launches_; ++i) launch(stream_, i % timed.copies);
  CUDA_CHECK(cudaStreamEndCapture(stream_, &graph), timed.name);
  CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0), timed.name);
  CUDA_CHECK(cudaGraphDestroy(graph), timed.name);
}

TimedGraph::~TimedGraph() {
  cudaGraphExecDestroy(graph_);
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

double TimedGraph::run() {
  CUDA_CHECK(cudaEventRecord(begin_, stream_), "timing");
  CUDA_CHECK(cudaGraphLaunch(graph_, stream_), "timing");
  CUDA_CHECK(cudaEventRecord(end_, stream_), "timing");
  CUDA_CHECK(cudaEventSynchronize(end_), "timing");
  float milliseconds = 0;
  CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_), "timing");
  return double{milliseconds} / 1e3 / static_cast<double>(launches_);
}

}  // namespace tramontane::cuda
