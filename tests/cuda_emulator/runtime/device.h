// The device that the emulator shows: an sm_80 of one A100's limits.
#pragma once

#include <driver_types.h>

namespace tramontane::emulator {

const cudaDeviceProp& device_properties();

}  // namespace tramontane::emulator
