// The AMX kernels over emulated tiles, for processors without AMX: the same source as
// cpu/linear_amx_kernels.cpp, with plain C++ in place of the tile instructions. The rest of the walk is
// AVX-512 BF16, which it needs.
#pragma once

#include "cpu/linear_amx_tile.h"
#include "cpu/linear_planes_tile.h"

namespace tramontane {

extern const AmxKernels amx_emulated_kernels;
void multiply_planes_emulated(const PlanesPart& part);

}  // namespace tramontane
