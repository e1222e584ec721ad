// Streams, events and graphs: legal programs give the same result under every order, missing synchronisations
// show.
#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

#include <cuda_runtime.h>
#include <gmock/gmock.h>

#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;

constexpr int kCount = 256;
constexpr std::size_t kBytes = kCount * sizeof(int);

class StreamTest : public EmulatorTest {
 protected:
  void SetUp() override {
    EmulatorTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cudaMalloc(reinterpret_cast<void**>(&device_), kBytes), cudaSuccess);
    ASSERT_EQ(cudaMallocHost(reinterpret_cast<void**>(&pinned_), kBytes), cudaSuccess);
    for (auto* stream : {&a_, &b_})
      ASSERT_EQ(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking), cudaSuccess);
    ASSERT_EQ(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), cudaSuccess);
  }
  void TearDown() override {
    cudaDeviceSynchronize();
    cudaFreeHost(pinned_);
    EmulatorTest::TearDown();
  }
  void fill_pinned(int value) { std::fill(pinned_, pinned_ + kCount, value); }

  int *device_ = nullptr, *pinned_ = nullptr;
  cudaStream_t a_ = nullptr, b_ = nullptr;
  cudaEvent_t event_ = nullptr;
};

TEST_F(StreamTest, OneStreamKeepsItsOrder) {
  for (const char* order : {"random", "late", "eager"}) {
    ASSERT_TRUE(set("STREAMS", order));
    fill_pinned(5);
    cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, a_);
    for (int i = 0; i < 20; ++i) add_one(device_, kCount, a_);
    cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, a_);
    ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
    EXPECT_EQ(pinned_[100], 25) << order;
  }
}

// A copy in one stream, a kernel on its data in another. Returns the results over some seeds.
std::set<int> results_of_two_streams(cudaStream_t a, cudaStream_t b, cudaEvent_t event, int* device,
                                     int* pinned, bool waits) {
  std::set<int> results;
  for (int seed = 0; seed < 30; ++seed) {
    cudaMemset(device, 0, kBytes);
    cudaDeviceSynchronize();
    std::fill(pinned, pinned + kCount, 5);
    cudaMemcpyAsync(device, pinned, kBytes, cudaMemcpyHostToDevice, a);
    if (waits) cudaEventRecord(event, a), cudaStreamWaitEvent(b, event, 0);
    add_one(device, kCount, b);
    cudaStreamSynchronize(b);
    cudaDeviceSynchronize();
    int value = 0;
    cudaMemcpy(&value, device, sizeof value, cudaMemcpyDeviceToHost);
    results.insert(value);
  }
  return results;
}

TEST_F(StreamTest, EventOrdersStreams) {
  EXPECT_EQ(results_of_two_streams(a_, b_, event_, device_, pinned_, true), std::set<int>{6});
}
TEST_F(StreamTest, MissingEventShows) {
  EXPECT_EQ(results_of_two_streams(a_, b_, event_, device_, pinned_, false), (std::set<int>{5, 6}));
}

TEST_F(StreamTest, MissingSynchronisationBeforeTheHostReadsShows) {
  ASSERT_TRUE(set("STREAMS", "late"));
  fill_pinned(1);
  cudaMemset(device_, 0, kBytes);
  cudaDeviceSynchronize();
  add_one(device_, kCount, a_);
  cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, a_);
  pinned_[0] = -1;
  EXPECT_EQ(pinned_[0], -1) << "nothing has waited for the copy";
  cudaStreamSynchronize(a_);
  EXPECT_EQ(pinned_[0], 1);
}

TEST_F(StreamTest, PinnedSourceIsReadLatePageableAtOnce) {
  ASSERT_TRUE(set("STREAMS", "late"));
  fill_pinned(3);
  cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, a_);
  fill_pinned(4);  // the mistake of a staging buffer used again too early
  int value = 0;
  cudaStreamSynchronize(a_);
  cudaMemcpy(&value, device_, sizeof value, cudaMemcpyDeviceToHost);
  EXPECT_EQ(value, 4);
  std::vector<int> pageable(kCount, 7);
  cudaMemcpyAsync(device_, pageable.data(), kBytes, cudaMemcpyHostToDevice, a_);
  pageable.assign(kCount, 8);
  cudaStreamSynchronize(a_);
  cudaMemcpy(&value, device_, sizeof value, cudaMemcpyDeviceToHost);
  EXPECT_EQ(value, 7);
}

TEST_F(StreamTest, DefaultStreamOrdersBlockingStreams) {
  cudaStream_t blocking = nullptr;
  ASSERT_EQ(cudaStreamCreate(&blocking), cudaSuccess);
  for (int round = 0; round < 20; ++round) {
    cudaMemsetAsync(device_, 0, kBytes, blocking);
    add_one(device_, kCount, nullptr);
    add_one(device_, kCount, blocking);
    ASSERT_EQ(cudaStreamSynchronize(blocking), cudaSuccess);
    int value = 0;
    cudaMemcpy(&value, device_ + 9, sizeof value, cudaMemcpyDeviceToHost);
    ASSERT_EQ(value, 2);
  }
}

TEST_F(StreamTest, CopiesToTheDeviceAreCounted) {
  const uint64_t before = uploads();
  ASSERT_EQ(cudaMemcpyAsync(device_, pinned_, kBytes, cudaMemcpyHostToDevice, a_), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(device_, pinned_, kBytes, cudaMemcpyDefault), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, a_), cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(device_, device_ + kCount / 2, kBytes / 2, cudaMemcpyDeviceToDevice, a_),
            cudaSuccess);
  EXPECT_EQ(uploads() - before, 2u);
}

TEST_F(StreamTest, QueriesBecomeReady) {
  ASSERT_TRUE(set("STREAMS", "late"));
  cudaMemsetAsync(device_, 0, kBytes, a_);
  cudaEventRecord(event_, a_);
  int tries = 0;
  while (cudaEventQuery(event_) == cudaErrorNotReady && tries < 1000) ++tries;
  EXPECT_LT(tries, 1000);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "not ready is no error";
}

TEST_F(StreamTest, HostCallbackRunsInOrderAndMayNotCallCuda) {
  struct State {
    int* pinned;
    int seen = 0;
    cudaError_t error = cudaSuccess;
  } state{pinned_};
  fill_pinned(0);
  cudaMemsetAsync(device_, 0, kBytes, a_);
  add_one(device_, kCount, a_);
  cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, a_);
  cudaLaunchHostFunc(
      a_,
      [](void* p) {
        auto* s = static_cast<State*>(p);
        s->seen = s->pinned[0];
        s->error = cudaDeviceSynchronize();
      },
      &state);
  ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(state.seen, 1);
  EXPECT_EQ(state.error, cudaErrorNotPermitted);
}

TEST_F(StreamTest, FaultOfAKernelComesAtTheNextSynchronisation) {
  ASSERT_TRUE(set("STREAMS", "late"));
  plain_copy(reinterpret_cast<float*>(pinned_), reinterpret_cast<float*>(device_), 2 * kCount);
  EXPECT_EQ(cudaPeekAtLastError(), cudaSuccess);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaErrorIllegalAddress);
  int value = 0;
  EXPECT_EQ(cudaMemcpy(&value, device_, 4, cudaMemcpyDeviceToHost), cudaErrorIllegalAddress);
}

class GraphTest : public StreamTest {
 protected:
  // Two branches that join: (set, +1, +1) and a copy of the pinned buffer to `other`.
  cudaGraphExec_t capture_fork(int* other) {
    cudaEvent_t forked = nullptr, joined = nullptr;
    cudaEventCreateWithFlags(&forked, cudaEventDisableTiming);
    cudaEventCreateWithFlags(&joined, cudaEventDisableTiming);
    EXPECT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal), cudaSuccess);
    cudaEventRecord(forked, a_);
    cudaStreamWaitEvent(b_, forked, 0);
    add_one(device_, kCount, a_);
    cudaMemcpyAsync(other, pinned_, kBytes, cudaMemcpyHostToDevice, b_);
    add_one(other, kCount, b_);
    add_one(device_, kCount, a_);
    cudaEventRecord(joined, b_);
    cudaStreamWaitEvent(a_, joined, 0);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
    std::size_t nodes = 0;
    EXPECT_EQ(cudaGraphGetNodes(graph, nullptr, &nodes), cudaSuccess);
    EXPECT_EQ(nodes, 4u);
    cudaGraphExec_t exec = nullptr;
    EXPECT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    cudaGraphDestroy(graph);
    return exec;
  }
};

TEST_F(GraphTest, CapturedWorkRunsAtEachLaunchAndNotBefore) {
  DeviceArray<int> other(std::vector<int>(kCount, 0));
  cudaMemset(device_, 0, kBytes);
  const cudaGraphExec_t exec = capture_fork(other.get());
  int value = -1;
  ASSERT_EQ(cudaMemcpy(&value, device_, sizeof value, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(value, 0) << "capturing runs nothing";
  // Each replay is in another order that the graph allows.
  for (int replay = 1; replay <= 12; ++replay) {
    fill_pinned(10 * replay);  // read by the graph's copy at its launch
    ASSERT_EQ(cudaGraphLaunch(exec, a_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(a_), cudaSuccess) << report();
    EXPECT_EQ(other.values()[7], 10 * replay + 1);
    cudaMemcpy(&value, device_, sizeof value, cudaMemcpyDeviceToHost);
    EXPECT_EQ(value, 2 * replay);
  }
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
}

TEST_F(GraphTest, TakesTheMemoryItIsToldToWhileItIsThere) {
  DeviceArray<int> other(std::vector<int>(kCount, 0));
  const auto free_bytes = [] {
    std::size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
  };
  EXPECT_EQ(cudaGraphExecDestroy(capture_fork(other.get())), cudaSuccess);  // its kernels are there now
  ASSERT_TRUE(set("GRAPH_MEMORY", "3000000"));
  const std::size_t before = free_bytes();
  const cudaGraphExec_t exec = capture_fork(other.get());
  EXPECT_EQ(before - free_bytes(), 3000000u);
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(free_bytes(), before);
}

TEST_F(GraphTest, AnUpdateTakesOverWhatAGraphOfTheSameShapeDoes) {
  const auto capture = [&](int* x, int count) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    for (int i = 0; i < count; ++i) add_one(x, kCount, a_);
    EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
    return graph;
  };
  DeviceArray<int> x(std::vector<int>(kCount, 0)), y(std::vector<int>(kCount, 0));
  cudaGraphExec_t exec = nullptr;
  ASSERT_EQ(cudaGraphInstantiate(&exec, capture(x.get(), 2), 0), cudaSuccess);
  cudaGraphExecUpdateResultInfo info{};
  EXPECT_EQ(cudaGraphExecUpdate(exec, capture(y.get(), 3), &info), cudaErrorGraphExecUpdateFailure);
  EXPECT_EQ(info.result, cudaGraphExecUpdateErrorTopologyChanged);
  EXPECT_EQ(cudaGraphExecUpdate(exec, capture(y.get(), 2), &info), cudaSuccess);
  EXPECT_EQ(cudaGraphLaunch(exec, a_), cudaSuccess);
  EXPECT_EQ(x.values()[0], 0);
  EXPECT_EQ(y.values()[0], 2);
}

TEST_F(StreamTest, LaunchesThatMayBeginEarlyKeepTheirOrder) {
  EXPECT_EQ(cudaMemsetAsync(device_, 0, kBytes, a_), cudaSuccess);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(add_one_early(device_, kCount, a_), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(pinned_, device_, kBytes, cudaMemcpyDeviceToHost, a_), cudaSuccess);
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaSuccess);
  EXPECT_EQ(pinned_[9], 5);
}

TEST_F(GraphTest, WorkNotJoinedIsRefused) {
  cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal);
  cudaEventRecord(event_, a_);
  cudaStreamWaitEvent(b_, event_, 0);
  add_one(device_, kCount, b_);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureUnjoined);
}

TEST_F(GraphTest, SynchronisationAndAllocationSpoilACapture) {
  cudaGraph_t graph = nullptr;
  cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal);
  EXPECT_EQ(cudaStreamSynchronize(a_), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureInvalidated);
  void* p = nullptr;
  cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal);
  EXPECT_EQ(cudaMalloc(&p, 16), cudaErrorStreamCaptureUnsupported);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaErrorStreamCaptureInvalidated);
  cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed);
  EXPECT_EQ(cudaMalloc(&p, 16), cudaSuccess);
  EXPECT_EQ(cudaStreamEndCapture(a_, &graph), cudaSuccess);
  cudaGetLastError();
}

// Calls that are unsafe during a capture, by name.
class UnsafeCalls : public GraphTest {
 protected:
  void SetUp() override {
    GraphTest::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cudaEventRecord(event_, b_), cudaSuccess);
    ASSERT_EQ(cudaHostRegister(registered_, sizeof registered_, cudaHostRegisterDefault), cudaSuccess);
    calls_ = {{"cudaMalloc", [this] { return cudaMalloc(&got_, 16); }},
              {"cudaFree", [this] { return cudaFree(device_); }},
              {"cudaMallocHost", [this] { return cudaMallocHost(&got_, 16); }},
              {"cudaHostAlloc", [this] { return cudaHostAlloc(&got_, 16, cudaHostAllocDefault); }},
              {"cudaFreeHost", [this] { return cudaFreeHost(pinned_); }},
              {"cudaHostRegister", [this] { return cudaHostRegister(other_, sizeof other_, 0); }},
              {"cudaHostUnregister", [this] { return cudaHostUnregister(registered_); }},
              {"cudaMemcpy", [this] { return cudaMemcpy(pinned_, device_, 4, cudaMemcpyDeviceToHost); }},
              {"cudaDeviceSynchronize", [] { return cudaDeviceSynchronize(); }},
              {"cudaEventSynchronize", [this] { return cudaEventSynchronize(event_); }},
              {"cudaEventQuery", [this] { return cudaEventQuery(event_); }},
              {"cudaStreamQuery", [this] { return cudaStreamQuery(b_); }}};
  }
  void TearDown() override {
    cudaHostUnregister(registered_);
    GraphTest::TearDown();
  }
  cudaError_t end() {
    cudaGraph_t graph = nullptr;
    const cudaError_t error = cudaStreamEndCapture(a_, &graph);
    if (graph) cudaGraphDestroy(graph);
    return error;
  }
  static cudaError_t in_another_thread(const std::function<cudaError_t()>& call) {
    cudaError_t error = cudaErrorUnknown;
    std::thread([&] { error = call(); }).join();
    return error;
  }

  std::map<std::string, std::function<cudaError_t()>> calls_;
  void* got_ = nullptr;
  char registered_[64] = {}, other_[64] = {};
};

TEST_F(UnsafeCalls, SpoilACaptureOfTheSameThread) {
  for (const auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal})
    for (const auto& [name, call] : calls_) {
      SCOPED_TRACE(name);
      ASSERT_EQ(cudaStreamBeginCapture(a_, mode), cudaSuccess);
      EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
      EXPECT_THAT(report(), ::testing::HasSubstr(name));
      EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
    }
  for (const auto& [name, call] : calls_)
    if (name != "cudaFree" && name != "cudaFreeHost")
      EXPECT_NE(call(), cudaErrorStreamCaptureUnsupported) << name;
}

TEST_F(UnsafeCalls, OfAnotherThreadSpoilAGlobalCaptureAlone) {
  for (const auto& [name, call] : calls_) {
    SCOPED_TRACE(name);
    ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal), cudaSuccess);
    EXPECT_EQ(in_another_thread(call), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(end(), cudaErrorStreamCaptureInvalidated);
  }
  for (const auto& [name, call] : calls_) {
    SCOPED_TRACE(name);
    ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    if (name != "cudaFree" && name != "cudaFreeHost")
      EXPECT_NE(in_another_thread(call), cudaErrorStreamCaptureUnsupported);
    EXPECT_EQ(end(), cudaSuccess);
  }
}

TEST_F(UnsafeCalls, AreLeftToAThreadThatSaysSo) {
  for (auto mode : {cudaStreamCaptureModeRelaxed, cudaStreamCaptureModeThreadLocal}) {
    const bool relaxed = mode == cudaStreamCaptureModeRelaxed;
    ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_EQ(cudaThreadExchangeStreamCaptureMode(&mode), cudaSuccess);
    EXPECT_EQ(mode, cudaStreamCaptureModeGlobal) << "the mode until now";
    EXPECT_EQ(cudaMallocHost(&got_, 16), relaxed ? cudaSuccess : cudaErrorStreamCaptureUnsupported);
    ASSERT_EQ(cudaThreadExchangeStreamCaptureMode(&mode), cudaSuccess);
    EXPECT_EQ(end(), relaxed ? cudaSuccess : cudaErrorStreamCaptureInvalidated);
  }
  ASSERT_EQ(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal), cudaSuccess);
  EXPECT_EQ(in_another_thread([&] {
              cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
              cudaThreadExchangeStreamCaptureMode(&mode);
              return cudaMalloc(&got_, 16);
            }),
            cudaSuccess);
  EXPECT_EQ(end(), cudaSuccess);
}

TEST_F(StreamTest, DeviceTellsWhatItIs) {
  cudaDeviceProp properties{};
  ASSERT_EQ(cudaGetDeviceProperties(&properties, 0), cudaSuccess);
  EXPECT_THAT(properties.name, ::testing::HasSubstr("PTX emulator"));
  EXPECT_EQ(properties.major * 10 + properties.minor, 80);
  int value = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0), cudaSuccess);
  EXPECT_EQ(value, properties.multiProcessorCount);
  EXPECT_EQ(cudaSetDevice(1), cudaErrorInvalidDevice);
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  void* p = nullptr;
  cudaMalloc(&p, 1 << 20);
  std::size_t less = 0;
  cudaMemGetInfo(&less, &total);
  EXPECT_EQ(free - less, std::size_t{1} << 20);
}

}  // namespace
}  // namespace tramontane::emulator
