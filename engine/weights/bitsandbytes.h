// bitsandbytes 4-bit checkpoints (FP4, NF4, with and without double quantisation) as transformers saves them.
// Loading thread only. Layout: P.weight U8, two codes a byte, the even element in the HIGH nibble;
// P.weight.absmax, .quant_map and .quant_state.bitsandbytes__fp4 / __nf4 (JSON text); double quantisation
// adds .nested_absmax and .nested_quant_map. w = quant_map[code] * absmax[flat element / blocksize]. Verified
// against bitsandbytes 0.50.
#pragma once

#include <string>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

// A weight with P.weight.absmax is quantised, any other is dense.
StoredWeight read_bitsandbytes(TensorTable& table, const std::string& name, int64_t rows, int64_t cols);

}  // namespace tramontane
