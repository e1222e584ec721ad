// bitsandbytes 4-bit checkpoints (FP4, NF4, with and without double quantisation) as transformers saves them.
// Loading thread only. Layout: P.weight U8, two codes a byte, the even element in the HIGH nibble;
// P.weight.absmax, .quant_map and .quant_state.bitsandbytes__fp4 / __nf4 (JSON text); double quantisation
// adds .nested_absmax and .nested_quant_map. w = quant_map[code] * absmax[flat element / blocksize]. Verified
// against bitsandbytes 0.50.
#pragma once

#include <string>

#include "engine/weights/stored_tensor.h"

namespace tramontane {

// A weight with P.weight.absmax or of bytes is quantised, any other is dense. Blocks of any size that 16
// divides, also where they run over rows: the canonical group is the largest of 16 to 128 that divides both
// block and row.
StoredWeight read_bitsandbytes(TensorTable& table, const std::string& name, int64_t rows, int64_t cols);

}  // namespace tramontane
