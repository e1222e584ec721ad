// Streams, events, host callbacks, errors.
#include <cuda_runtime_api.h>

#include "tests/cuda_emulator/runtime/errors.h"
#include "tests/cuda_emulator/runtime/runtime.h"

using namespace tramontane::emulator;

namespace {

cudaStream_t handle(Stream* stream) {
  return reinterpret_cast<cudaStream_t>(stream);
}
cudaEvent_t handle(Event* event) {
  return reinterpret_cast<cudaEvent_t>(event);
}

}  // namespace

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  return api([&](Runtime& runtime) { *stream = handle(runtime.streams.create(flags, priority)); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return api([&](Runtime& runtime) { *stream = handle(runtime.streams.create(flags, 0)); });
}
cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return api([&](Runtime& runtime) { *stream = handle(runtime.streams.create(cudaStreamDefault, 0)); });
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return api([&](Runtime& runtime) { runtime.streams.destroy(&runtime.streams.get(stream)); });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return api([&](Runtime& runtime) { runtime.streams.synchronize(runtime.streams.get(stream)); });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    Stream& s = runtime.streams.get(stream);
    require(!s.capture, "query of a stream that captures", cudaErrorStreamCaptureUnsupported);
    runtime.streams.forbid_in_capture("cudaStreamQuery");
    if (!runtime.streams.is_done(s.last)) refuse(cudaErrorNotReady, "");
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return api([&](Runtime& runtime) {
    runtime.streams.wait(runtime.streams.get(stream), runtime.streams.get(event));
  });
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return api([&](Runtime& runtime) { *flags = runtime.streams.get(stream).flags; });
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return api([&](Runtime& runtime) { *priority = runtime.streams.get(stream).priority; });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return api([&](Runtime& runtime) {
    runtime.streams.submit(runtime.streams.get(stream), [&runtime, function, data] {
      runtime.streams.run_callback([=] { function(data); });
    });
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return api([&](Runtime& runtime) { *event = handle(runtime.streams.create_event(flags)); });
}
cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return api([&](Runtime& runtime) { *event = handle(runtime.streams.create_event(cudaEventDefault)); });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return api([&](Runtime& runtime) { runtime.streams.destroy_event(&runtime.streams.get(event)); });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return api([&](Runtime& runtime) {
    runtime.streams.record(runtime.streams.get(event), runtime.streams.get(stream));
  });
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return api([&](Runtime& runtime) {
    const Event& e = runtime.streams.get(event);
    require(!e.capture, "synchronisation with an event of a capture", cudaErrorCapturedEvent);
    runtime.streams.forbid_in_capture("cudaEventSynchronize");
    runtime.streams.synchronize(e);
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return api([&](Runtime& runtime) {
    const Event& e = runtime.streams.get(event);
    require(!e.capture, "query of an event of a capture", cudaErrorCapturedEvent);
    runtime.streams.forbid_in_capture("cudaEventQuery");
    if (!runtime.streams.is_done(e.recorded)) refuse(cudaErrorNotReady, "");
  });
}
// The host's time between the two, which says nothing of a GPU's.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  return api([&](Runtime& runtime) {
    const Event& b = runtime.streams.get(begin);
    const Event& e = runtime.streams.get(end);
    require(b.recorded && e.recorded && !((b.flags | e.flags) & cudaEventDisableTiming),
            "events that were not recorded with timing", cudaErrorInvalidResourceHandle);
    if (!b.recorded->done || !e.recorded->done) refuse(cudaErrorNotReady, "");
    *milliseconds = std::chrono::duration<float, std::milli>(*e.time - *b.time).count();
  });
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error() = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() {
  Runtime& runtime = Runtime::instance();
  const std::lock_guard lock(runtime.mutex);
  return runtime.sticky != cudaSuccess ? runtime.sticky : last_error();
}
const char* cudaGetErrorString(cudaError_t error) {
  const ErrorText* known = find_error(error);
  return known ? known->text : "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* known = find_error(error);
  return known ? known->name : "unrecognized error code";
}

}  // extern "C"
