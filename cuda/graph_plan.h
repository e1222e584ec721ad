// Which decode steps become CUDA graphs: their batches are padded to a few sizes, their longest sequences to
// a few lengths, so that few graphs serve all. Plain functions, any thread.
#pragma once

#include <cstdint>

namespace tramontane::cuda {

// Decode steps of more rows are bound by arithmetic; launches hide behind it.
inline constexpr int32_t kMostGraphRows = 256;

// Device memory of one captured step: an estimate. Mistral 7B's have 163 kernel nodes (up to 8 rows) or 291,
// so it is 6.4 or 3.6 KB a node. The first graphs are measured against it.
inline constexpr uint64_t kGraphBytes = uint64_t{1} << 20;

// The size that a batch of `rows` is padded to: 1, 2, 4, 8, 16, 24, 32, …
int32_t graph_rows(int32_t rows);

// The keys that the graph for a longest sequence of `max_kv` serves: 512, 2048, 8192, … A block of attention
// that finds no keys to read costs next to nothing, so at most 3 in 4 of them may be idle.
int32_t graph_keys(int32_t max_kv);

// How many graphs there can be: padded sizes, the last one cut to max_sequences, times lengths.
uint64_t graph_count(int32_t max_sequences, int32_t max_kv);

}  // namespace tramontane::cuda
