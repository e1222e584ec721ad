// What every launcher of cuda/ takes besides tensors: the stream, spelled without CUDA's headers so that C++
// may include it. Launchers only queue work: they never allocate and never synchronise, so that all of them
// can be captured into a graph. A failed launch throws DeviceError (device_error.h), naming the call and the
// operation. Engine thread only.
#pragma once

struct CUstream_st;

namespace tramontane::cuda {

using Stream = CUstream_st*;  // cudaStream_t

}  // namespace tramontane::cuda
