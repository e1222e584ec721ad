// Any bytes as the quant_state of a bitsandbytes weight whose other tensors are good: what is accepted fits
// them.
#include <cstring>
#include <map>
#include <stdexcept>

#include "engine/weights/bitsandbytes.h"
#include "engine/weights/quantize_rules.h"
#include "tests/fuzz/memory_file.h"

using namespace tramontane;

namespace {

constexpr int64_t kRows = 8, kCols = 128;  // 16 blocks of 64

struct Part {
  const char* name;
  const char* dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

std::vector<std::byte> floats(size_t count, float value) {
  std::vector<std::byte> bytes(count * sizeof value);
  for (size_t i = 0; i < count; ++i) std::memcpy(bytes.data() + i * sizeof value, &value, sizeof value);
  return bytes;
}

// With double quantisation or without, by what the state begins with: a mutation reaches both.
std::vector<Part> good_parts(bool fp4, bool nested) {
  const auto table = bitsandbytes_table(fp4 ? FourBit::fp4 : FourBit::nf4);
  std::vector<std::byte> map(sizeof table);
  std::memcpy(map.data(), table.data(), sizeof table);
  std::vector<Part> parts = {{"", "U8", {kRows * kCols / 2, 1}, std::vector<std::byte>(kRows * kCols / 2)},
                             {".quant_map", "F32", {16}, map}};
  if (!nested) {
    parts.push_back({".absmax", "F32", {16}, floats(16, 0.5f)});
    return parts;
  }
  parts.push_back({".absmax", "U8", {16}, std::vector<std::byte>(16, std::byte{200})});
  parts.push_back({".nested_absmax", "F32", {1}, floats(1, 0.25f)});
  parts.push_back({".nested_quant_map", "F32", {256}, floats(256, 0.125f)});
  return parts;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const bool fp4 = data[0] & 1, nested = data[0] & 2;
  const MemoryFile memory(data, size);
  const auto file = MappedFile::open(memory.path());
  const std::vector<Part> parts = good_parts(fp4, nested);
  TensorTable table("fuzz");
  for (const Part& part : parts)
    table.add({std::string("w.weight") + part.name, part.dtype, part.shape, part.bytes, file});
  const std::span<const std::byte> state = file->bytes().subspan(1);
  table.add({std::string("w.weight.quant_state.bitsandbytes__") + (fp4 ? "fp4" : "nf4"),
             "U8",
             {static_cast<int64_t>(state.size())},
             state,
             file});
  try {
    const HostMatrix matrix = read_bitsandbytes(table, "w.weight", kRows, kCols).load();
    std::vector<float> row(kCols);
    for (int64_t n = 0; n < kRows; ++n) dequantize_row(matrix, n, row);
  } catch (const std::runtime_error&) {
  }
  return 0;
}
