#include "engine/weights/mlx.h"

#include <cstring>
#include <stdexcept>

#include "engine/backend/check.h"

namespace tramontane {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const StoredTensor& tensor, const std::string& fault) {
  throw std::runtime_error(tensor.where() + ": " + fault);
}

bool supported(int64_t bits, int64_t group) {
  const bool bits_ok = bits >= 2 && bits <= 8 && bits != 7;
  return bits_ok && (group == 32 || group == 64 || group == 128);
}

// Bits and group size of a module whose own setting leaves them out: mlx's defaults, not the block's.
constexpr std::pair<int, int> kModuleDefaults = {4, 64};

// `otherwise` when the key is left out, 0 when it holds no number of bits or weights.
int64_t integer_of(const json& block, const char* key, int otherwise) {
  const auto found = block.find(key);
  if (found == block.end()) return otherwise;
  return found->is_number_integer() && *found >= 1 && *found <= 1024 ? found->get<int64_t>() : 0;
}

// {"bits": 4, "group_size": 64, "mode": "affine"} -> bits, group; throws for anything that is not supported.
// `otherwise`: what keys that are left out mean.
std::pair<int, int> read_setting(const json& block, const std::string& where, std::pair<int, int> otherwise) {
  const auto mode = block.find("mode");
  if (mode != block.end() && *mode != "affine") {
    const std::string name = mode->is_string() ? mode->get<std::string>() : "?";
    throw std::runtime_error(where + ": mode \"" + name + "\" is not supported (only \"affine\")");
  }
  const int64_t bits = integer_of(block, "bits", otherwise.first);
  const int64_t group = integer_of(block, "group_size", otherwise.second);
  if (!supported(bits, group)) {
    throw std::runtime_error(where + ": bits " + std::to_string(bits) + ", group_size " +
                             std::to_string(group) +
                             " is not supported (bits 2, 3, 4, 5, 6, 8; group_size 32, 64, 128)");
  }
  return {static_cast<int>(bits), static_cast<int>(group)};
}

DType scale_dtype(const StoredTensor& scales, const StoredTensor& biases) {
  for (const DType dtype : {DType::bf16, DType::f16, DType::f32}) {
    if (scales.dtype != name_of(dtype)) continue;
    if (biases.dtype != scales.dtype)
      fail(biases, "dtype is " + biases.dtype + ", expected the scales' " + scales.dtype);
    return dtype;
  }
  fail(scales,
       "dtype " + scales.dtype + " is not supported (mxfp4, nvfp4 and mxfp8 are not; BF16, F16, F32 are)");
}

QuantLayout layout_of(int bits, int group) {
  QuantLayout layout{bits <= 4 ? 4 : bits <= 6 ? 6 : 8, group, true, 0, {}};
  if (layout.bits == 4) {
    for (size_t i = 0; i < 16; ++i) layout.table[i] = static_cast<float>(i);
  }
  return layout;
}

// `count` codes of `bits` bits each, lowest first, to one byte each or (nibbles) two a byte, even codes low.
// The stream may be cut into rows anywhere that a row fills whole bytes.
void unpack(std::span<const std::byte> stream, int bits, size_t count, bool nibbles,
            std::vector<std::byte>& out) {
  out.assign(nibbles ? count / 2 : count, std::byte{0});
  const unsigned mask = (1u << bits) - 1;
  uint32_t window = 0;
  int have = 0;
  size_t next = 0;
  for (size_t i = 0; i < count; ++i) {
    if (have < bits) {
      window |= std::to_integer<uint32_t>(stream[next++]) << have;
      have += 8;
    }
    const unsigned code = window & mask;
    window >>= bits;
    have -= bits;
    if (nibbles) {
      out[i / 2] |= static_cast<std::byte>(code << (i % 2 * 4));
    } else {
      out[i] = static_cast<std::byte>(code);
    }
  }
}

struct Parts {
  const StoredTensor& weight;
  const StoredTensor& scales;
  const StoredTensor& biases;
  int bits, group;
  DType dtype;
};

// Codes of 4 and 8 bits are canonical as they lie in the file.
HostMatrix load(const Parts& p, int64_t n, int64_t k) {
  HostMatrix m;
  m.n = n;
  m.k = k;
  m.quant = layout_of(p.bits, p.group);
  m.scale_dtype = p.dtype;
  auto owner = std::make_shared<MatrixOwner>();
  owner->files = {p.weight.file, p.scales.file, p.biases.file};
  m.codes = p.weight.bytes;
  if (p.bits != 4 && p.bits != 8) {
    unpack(p.weight.bytes, p.bits, static_cast<size_t>(n * k), p.bits < 4, owner->codes);
    m.codes = owner->codes;
  }
  m.scales = aligned(p.scales.bytes, size_of(p.dtype), owner->scales);
  m.biases = aligned(p.biases.bytes, size_of(p.dtype), owner->biases);
  m.owner = std::move(owner);
  check_canonical(m);
  check_scales(m, p.weight);
  return m;
}

}  // namespace

MlxReader::MlxReader(const json& quantization) {
  const std::string where = "config.json: quantization";
  if (!quantization.is_object()) throw std::runtime_error(where + ": expected a JSON object");
  const auto block = read_setting(quantization, where, {0, 0});  // mlx_lm wants both keys here
  for (const auto& [key, value] : quantization.items()) {
    if (value.is_object()) {
      const auto [bits, group] = read_setting(value, where + ": " + key, kModuleDefaults);
      overrides_[key] = {true, bits, group};
    } else if (value == true) {
      overrides_[key] = {true, block.first, block.second};
    } else if (value == false || value.is_null()) {
      overrides_[key] = {false, 0, 0};
    }
  }
}

StoredWeight MlxReader::operator()(TensorTable& table, const std::string& name, int64_t rows,
                                   int64_t cols) const {
  const std::string module = name.substr(0, name.size() - std::strlen(".weight"));
  const auto named = overrides_.find(module);
  const bool quantized = table.has(module + ".scales");
  if (named != overrides_.end() && named->second.quantized != quantized && table.has(name)) {
    throw std::runtime_error("config.json: quantization: " + module + " is " + (quantized ? "" : "not ") +
                             "quantised in the file, the config says otherwise");
  }
  if (rows == 0) return read_dense(table, name, rows, cols);
  const StoredTensor& weight = table.take(name);
  if (!quantized && weight.dtype != "U32") return read_dense(table, name, rows, cols);
  const StoredTensor& scales = table.take(module + ".scales");
  if (!table.has(module + ".biases"))
    fail(scales, "has no biases beside it: only affine quantisation is supported (not mxfp4, nvfp4, mxfp8)");
  const StoredTensor& biases = table.take(module + ".biases");
  if (weight.dtype != "U32") fail(weight, "dtype is " + weight.dtype + ", expected U32");
  if (weight.shape.size() != 2 || scales.shape.size() != 2 || scales.shape[1] < 1)
    fail(weight, "is not a quantised matrix: shape " + shape_text(weight.shape) + ", scales " +
                     shape_text(scales.shape));
  // cols is at most 2^22 and a row of codes at most cols words, or the division below is not exact.
  const int64_t words = weight.shape[1];
  const int64_t bits = words <= cols ? words * 32 / cols : 0, group = cols / scales.shape[1];
  if (!supported(bits, group) || words * 32 != bits * cols || group * scales.shape[1] != cols) {
    fail(weight, "shape " + shape_text(weight.shape) + " with scales " + shape_text(scales.shape) +
                     " does not fit a [" + std::to_string(rows) + ", " + std::to_string(cols) +
                     "] matrix of 2, 3, 4, 5, 6 or 8 bits");
  }
  if (named != overrides_.end() && (named->second.bits != bits || named->second.group != group)) {
    fail(weight, "has " + std::to_string(bits) + " bits, group " + std::to_string(group) +
                     "; the config says " + std::to_string(named->second.bits) + " bits, group " +
                     std::to_string(named->second.group));
  }
  check_shape(weight, rows, words);
  check_shape(scales, rows, cols / group);
  check_shape(biases, rows, cols / group);
  const Parts parts{
      weight, scales, biases, static_cast<int>(bits), static_cast<int>(group), scale_dtype(scales, biases)};
  StoredWeight result =
      describe(weight, "MLX affine " + std::to_string(bits) + "-bit g" + std::to_string(group), rows, cols);
  result.info.bytes += scales.bytes.size() + biases.bytes.size();
  result.load = [parts, rows, cols] { return load(parts, rows, cols); };
  return result;
}

}  // namespace tramontane
