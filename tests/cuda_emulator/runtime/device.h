// The device that the emulator shows: one A100's limits, with the capability that COMPUTE asks for.
#pragma once

#include <driver_types.h>

namespace tramontane::emulator {

constexpr int kRuntimeVersion = 13000;

const cudaDeviceProp& device_properties();

}  // namespace tramontane::emulator
