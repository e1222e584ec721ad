// The device that the emulator shows: an A100, or another one with the limits of the capability that COMPUTE
// asks for.
#pragma once

#include <driver_types.h>

namespace tramontane::emulator {

constexpr int kRuntimeVersion = 13000;

const cudaDeviceProp& device_properties();

}  // namespace tramontane::emulator
