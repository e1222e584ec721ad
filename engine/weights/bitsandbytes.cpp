#include "engine/weights/bitsandbytes.h"

#include <array>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine/backend/check.h"
#include "engine/weights/quantize_rules.h"
#include "engine/weights/safetensors.h"

namespace tramontane {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const StoredTensor& tensor, const std::string& fault) {
  throw std::runtime_error(tensor.where() + ": " + fault);
}

void check_tensor(const StoredTensor& tensor, const char* dtype, int64_t size) {
  if (tensor.dtype != dtype) fail(tensor, "dtype is " + tensor.dtype + ", expected " + dtype);
  check_shape(tensor, 0, size);
}

float float_at(std::span<const std::byte> bytes, size_t index) {
  float value;
  std::memcpy(&value, bytes.data() + index * sizeof value, sizeof value);
  return value;
}

// What a quant_state says.
struct State {
  bool fp4 = false;
  int64_t blocksize = 0;
  bool nested = false;
  int64_t nested_blocksize = 0;
  float nested_offset = 0;
};

int64_t block_of(const StoredTensor& tensor, const json& state, const char* key) {
  const auto found = state.find(key);
  if (found == state.end() || !found->is_number_unsigned() || *found < 1 || *found > 1 << 20)
    fail(tensor, std::string(key) + " is not a block size");
  return found->get<int64_t>();
}

State parse_state(const StoredTensor& tensor, bool fp4, int64_t rows, int64_t cols) {
  if (tensor.dtype != "U8") fail(tensor, "dtype is " + tensor.dtype + ", expected U8");
  const json text = parse_json(tensor.bytes, tensor.where(), true);
  if (!text.is_object()) fail(tensor, "is not a JSON object");
  const std::string type = fp4 ? "fp4" : "nf4";
  if (!text.contains("quant_type") || text["quant_type"] != type)
    fail(tensor, "quant_type is not \"" + type + "\"");
  if (!text.contains("shape") || text["shape"] != json{rows, cols}) {
    fail(tensor, "shape is not " + shape_text({rows, cols}));
  }
  State state;
  state.fp4 = fp4;
  state.blocksize = block_of(tensor, text, "blocksize");
  state.nested = text.contains("nested_offset") || text.contains("nested_blocksize");
  if (!state.nested) return state;
  state.nested_blocksize = block_of(tensor, text, "nested_blocksize");
  if (!text.contains("nested_dtype") || text["nested_dtype"] != "float32")
    fail(tensor, "nested_dtype is not \"float32\"");
  if (!text.contains("nested_offset") || !text["nested_offset"].is_number())
    fail(tensor, "nested_offset is not a number");
  state.nested_offset =
      static_cast<float>(text["nested_offset"].get<double>());  // as bitsandbytes: parsed as a double
  return state;
}

std::array<float, 16> read_map(const StoredTensor& tensor, bool fp4) {
  check_tensor(tensor, "F32", 16);
  std::array<float, 16> map;
  std::memcpy(map.data(), tensor.bytes.data(), sizeof map);
  // The file carries its own copy of the library's table, which must say the same.
  if (map != bitsandbytes_table(fp4 ? FourBit::fp4 : FourBit::nf4))
    fail(tensor, std::string("is not bitsandbytes' ") + (fp4 ? "FP4" : "NF4") + " table");
  return map;
}

struct Parts {
  const StoredTensor& weight;
  const StoredTensor& absmax;
  const StoredTensor* nested_absmax = nullptr;
  const StoredTensor* nested_map = nullptr;
  State state;
  std::array<float, 16> map;
};

// absmax[b] = nested_map[code[b]] * nested_absmax[b / nested_blocksize] + offset, a product and a sum in
// FP32.
std::vector<std::byte> expand_absmax(const Parts& p) {
  std::vector<std::byte> out(p.absmax.bytes.size() * sizeof(float));
  for (size_t b = 0; b < p.absmax.bytes.size(); ++b) {
    const float code = float_at(p.nested_map->bytes, std::to_integer<size_t>(p.absmax.bytes[b]));
    const float product =
        code * float_at(p.nested_absmax->bytes, b / static_cast<size_t>(p.state.nested_blocksize));
    const float value = product + p.state.nested_offset;
    std::memcpy(out.data() + b * sizeof value, &value, sizeof value);
  }
  return out;
}

// bitsandbytes' blocks run over the flat matrix, canonical groups inside a row: the largest group that
// divides both. Rows of 96 in blocks of 64 have groups of 32. 0: none.
int group_of(int64_t blocksize, int64_t cols) {
  if (!std::has_single_bit(static_cast<uint64_t>(blocksize))) return 0;  // bitsandbytes has 32 to 4,096
  for (const int group : {128, 64, 32, 16}) {
    if (blocksize % group == 0 && cols % group == 0) return group;
  }
  return 0;
}

// One scale a block to one a group: those of a block are the same.
std::vector<std::byte> spread(std::span<const std::byte> absmax, int64_t blocksize, int group,
                              int64_t groups) {
  std::vector<std::byte> out(static_cast<size_t>(groups) * sizeof(float));
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = float_at(absmax, static_cast<size_t>(g * group / blocksize));
    std::memcpy(out.data() + static_cast<size_t>(g) * sizeof scale, &scale, sizeof scale);
  }
  return out;
}

HostMatrix load(const Parts& p, int64_t n, int64_t k) {
  HostMatrix m;
  m.n = n;
  m.k = k;
  const int group = group_of(p.state.blocksize, k);
  m.quant = QuantLayout{4, group, false, 0, p.map};
  m.scale_dtype = DType::f32;
  auto owner = std::make_shared<MatrixOwner>();
  owner->files = {p.weight.file, p.absmax.file};
  owner->codes.assign(p.weight.bytes.begin(), p.weight.bytes.end());
  for (std::byte& pair : owner->codes) pair = pair << 4 | pair >> 4;  // even elements to the low nibble
  m.codes = owner->codes;
  if (p.state.nested) {
    owner->scales = expand_absmax(p);
    m.scales = owner->scales;
  } else {
    m.scales = aligned(p.absmax.bytes, sizeof(float), owner->scales);
  }
  if (group != p.state.blocksize) {
    owner->scales = spread(m.scales, p.state.blocksize, group, n * k / group);
    m.scales = owner->scales;
  }
  m.owner = std::move(owner);
  check_canonical(m);
  check_scales(m, p.weight);
  return m;
}

}  // namespace

StoredWeight read_bitsandbytes(TensorTable& table, const std::string& name, int64_t rows, int64_t cols) {
  if (rows == 0) return read_dense(table, name, rows, cols);
  const StoredTensor& weight = table.take(name);
  if (!table.has(name + ".absmax") && weight.dtype != "U8") return read_dense(table, name, rows, cols);
  const StoredTensor& absmax = table.take(name + ".absmax");
  const bool fp4 = table.has(name + ".quant_state.bitsandbytes__fp4");
  const StoredTensor& state_text = table.take(name + ".quant_state.bitsandbytes__" + (fp4 ? "fp4" : "nf4"));
  Parts parts{weight,
              absmax,
              nullptr,
              nullptr,
              parse_state(state_text, fp4, rows, cols),
              read_map(table.take(name + ".quant_map"), fp4)};
  const State& state = parts.state;
  if (group_of(state.blocksize, cols) == 0) {
    fail(weight, "blocksize " + std::to_string(state.blocksize) + " with rows of " + std::to_string(cols) +
                     " is not supported: expected a power of two, and 16 to divide both");
  }
  if (weight.dtype != "U8") fail(weight, "dtype is " + weight.dtype + ", expected U8");
  check_shape(weight, rows * cols / 2, 1);
  const int64_t blocks = (rows * cols + state.blocksize - 1) / state.blocksize;
  check_tensor(absmax, state.nested ? "U8" : "F32", blocks);
  StoredWeight result =
      describe(weight, std::string("bitsandbytes ") + (fp4 ? "FP4" : "NF4") + (state.nested ? " double" : ""),
               rows, cols);
  result.info.bytes += absmax.bytes.size();
  if (state.nested) {
    parts.nested_absmax = &table.take(name + ".nested_absmax");
    parts.nested_map = &table.take(name + ".nested_quant_map");
    check_tensor(*parts.nested_absmax, "F32", (blocks + state.nested_blocksize - 1) / state.nested_blocksize);
    check_tensor(*parts.nested_map, "F32", 256);
    result.info.bytes += parts.nested_absmax->bytes.size();
  }
  result.load = [parts, rows, cols] { return load(parts, rows, cols); };
  return result;
}

}  // namespace tramontane
