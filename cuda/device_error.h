// DeviceError: a CUDA call that failed, by the call's and the operation's name. After most of them the
// context is lost: the engine stops, requests are answered with 5xx, and the server turns not-ready and
// exits.
#pragma once

#include <stdexcept>
#include <string>

namespace tramontane::cuda {

struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace tramontane::cuda
