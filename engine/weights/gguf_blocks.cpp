#include "engine/weights/gguf_blocks.h"

#include <array>
#include <cstring>
#include <stdexcept>

namespace tramontane {

// Where the converted blocks of a matrix go. Blocks lie in row order, so block i starts at element i * block
// size.
struct CanonicalRows {
  uint8_t* codes;
  std::byte* scales;
  std::byte* biases;
};

namespace {

uint16_t load_u16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
float load_f16(const uint8_t* at) {
  return f16_to_float(load_u16(at));
}
void copy_f16(std::byte* to, size_t index, const uint8_t* from) {
  std::memcpy(to + index * 2, from, 2);
}
void store_f32(std::byte* to, size_t index, float value) {
  std::memcpy(to + index * sizeof value, &value, sizeof value);
}

// 32 codes in ggml's order (byte j: element j low, element j + 16 high) to 16 bytes with even elements low.
void reorder_nibbles(const uint8_t* from, uint8_t* to) {
  for (size_t j = 0; j < 8; ++j) {
    to[j] = static_cast<uint8_t>((from[2 * j] & 15) | (from[2 * j + 1] & 15) << 4);
    to[j + 8] = static_cast<uint8_t>(from[2 * j] >> 4 | (from[2 * j + 1] & 0xf0));
  }
}

// Packs codes < 16, one a byte, into nibbles.
void pack_nibbles(const uint8_t* codes, size_t count, uint8_t* to) {
  for (size_t j = 0; j < count / 2; ++j) to[j] = static_cast<uint8_t>(codes[2 * j] | codes[2 * j + 1] << 4);
}

// f16 d, u8 qs[16]: w = d * (q - 8).
void convert_q4_0(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  copy_f16(rows.scales, i, b);
  reorder_nibbles(b + 2, rows.codes + i * 16);
}

// f16 d, f16 m, u8 qs[16]: w = d * q + m.
void convert_q4_1(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  copy_f16(rows.scales, i, b);
  copy_f16(rows.biases, i, b + 2);
  reorder_nibbles(b + 4, rows.codes + i * 16);
}

// Low nibbles as in Q4_0; bit j of `high` is the fifth bit of element j.
void join_five_bits(const uint8_t* low, const uint8_t* high, uint8_t* to) {
  uint32_t bits;
  std::memcpy(&bits, high, sizeof bits);
  for (size_t j = 0; j < 16; ++j) {
    to[j] = static_cast<uint8_t>((low[j] & 15) | ((bits >> j) & 1) << 4);
    to[j + 16] = static_cast<uint8_t>(low[j] >> 4 | ((bits >> (j + 16)) & 1) << 4);
  }
}

// f16 d, u8 qh[4], u8 qs[16]: w = d * (q - 16).
void convert_q5_0(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  copy_f16(rows.scales, i, b);
  join_five_bits(b + 6, b + 2, rows.codes + i * 32);
}

// f16 d, f16 m, u8 qh[4], u8 qs[16]: w = d * q + m.
void convert_q5_1(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  copy_f16(rows.scales, i, b);
  copy_f16(rows.biases, i, b + 2);
  join_five_bits(b + 8, b + 4, rows.codes + i * 32);
}

// f16 d, i8 q[32]: w = d * q; the canonical byte is q + 128.
void convert_q8_0(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  copy_f16(rows.scales, i, b);
  for (size_t j = 0; j < 32; ++j) rows.codes[i * 32 + j] = b[2 + j] ^ 0x80;
}

// u8 scales[16] (low nibble scale, high nibble minimum), u8 qs[64], f16 d, f16 dmin: w = d * sc * q - dmin *
// m, groups of 16. Byte l of a half's 32 bytes holds elements l, l + 32, l + 64, l + 96, two bits each.
void convert_q2_k(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  const float d = load_f16(b + 80), dmin = load_f16(b + 82);
  for (size_t g = 0; g < 16; ++g) {
    store_f32(rows.scales, i * 16 + g, d * static_cast<float>(b[g] & 15));
    store_f32(rows.biases, i * 16 + g, -(dmin * static_cast<float>(b[g] >> 4)));
  }
  uint8_t codes[256];
  for (size_t e = 0; e < 256; ++e) {
    const size_t half = e / 128, part = e % 128 / 32, l = e % 32;
    codes[e] = (b[16 + half * 32 + l] >> (2 * part)) & 3;
  }
  pack_nibbles(codes, 256, rows.codes + i * 128);
}

// The 16 six-bit scales of Q3_K, spread over 12 bytes: low nibbles in bytes 0..7, upper two bits in
// bytes 8..11.
int q3_k_scale(const uint8_t* packed, size_t g) {
  const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
  const int high = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
  return (low | high << 4) - 32;
}

// u8 hmask[32], u8 qs[64], u8 scales[12], f16 d: w = d * sc * (q - 4), groups of 16; the third bit of q comes
// from hmask.
void convert_q3_k(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  const float d = load_f16(b + 108);
  for (size_t g = 0; g < 16; ++g)
    store_f32(rows.scales, i * 16 + g, d * static_cast<float>(q3_k_scale(b + 96, g)));
  uint8_t codes[256];
  for (size_t e = 0; e < 256; ++e) {
    const size_t half = e / 128, part = e % 128 / 32, l = e % 32;
    const int low = (b[32 + half * 32 + l] >> (2 * part)) & 3;
    const int high = (b[l] >> (half * 4 + part)) & 1;
    codes[e] = static_cast<uint8_t>(low | high << 2);
  }
  pack_nibbles(codes, 256, rows.codes + i * 128);
}

// The eight six-bit scales and minima of Q4_K and Q5_K, spread over 12 bytes.
void store_k_scales(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  const float d = load_f16(b), dmin = load_f16(b + 2);
  const uint8_t* packed = b + 4;
  for (size_t g = 0; g < 8; ++g) {
    const int scale = g < 4 ? packed[g] & 63 : (packed[g + 4] & 15) | packed[g - 4] >> 6 << 4;
    const int minimum = g < 4 ? packed[g + 4] & 63 : packed[g + 4] >> 4 | packed[g] >> 6 << 4;
    store_f32(rows.scales, i * 8 + g, d * static_cast<float>(scale));
    store_f32(rows.biases, i * 8 + g, -(dmin * static_cast<float>(minimum)));
  }
}

// f16 d, f16 dmin, u8 scales[12], u8 qs[128]: w = d * sc * q - dmin * m, groups of 32.
// Each 32 bytes of qs hold a group in their low nibbles and the next group in their high nibbles.
void convert_q4_k(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  store_k_scales(b, rows, i);
  uint8_t codes[256];
  for (size_t e = 0; e < 256; ++e) {
    const uint8_t pair = b[16 + e / 64 * 32 + e % 32];
    codes[e] = e % 64 < 32 ? pair & 15 : pair >> 4;
  }
  pack_nibbles(codes, 256, rows.codes + i * 128);
}

// f16 d, f16 dmin, u8 scales[12], u8 qh[32], u8 qs[128]: as Q4_K; bit g of qh[l] is the fifth bit of element
// l of group g.
void convert_q5_k(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  store_k_scales(b, rows, i);
  for (size_t e = 0; e < 256; ++e) {
    const uint8_t pair = b[48 + e / 64 * 32 + e % 32];
    const int low = e % 64 < 32 ? pair & 15 : pair >> 4;
    rows.codes[i * 256 + e] = static_cast<uint8_t>(low | ((b[16 + e % 32] >> (e / 32)) & 1) << 4);
  }
}

// u8 ql[128], u8 qh[64], i8 scales[16], f16 d: w = d * scales[i] * (q - 32), groups of 16.
void convert_q6_k(const uint8_t* b, const CanonicalRows& rows, size_t i) {
  const float d = load_f16(b + 208);
  for (size_t g = 0; g < 16; ++g) {
    store_f32(rows.scales, i * 16 + g, d * static_cast<float>(static_cast<int8_t>(b[192 + g])));
  }
  for (size_t e = 0; e < 256; ++e) {
    const size_t half = e / 128, part = e % 128 / 32, l = e % 32;
    const uint8_t pair = b[half * 64 + part % 2 * 32 + l];
    const int low = part < 2 ? pair & 15 : pair >> 4;
    const int high = (b[128 + half * 32 + l] >> (2 * part)) & 3;
    rows.codes[i * 256 + e] = static_cast<uint8_t>(low | high << 4);
  }
}

constexpr QuantLayout nibbles(int group, bool has_bias, int code_zero) {
  QuantLayout layout{4, group, has_bias, code_zero, {}};
  for (int i = 0; i < 16; ++i) layout.table[static_cast<size_t>(i)] = static_cast<float>(i - code_zero);
  return layout;
}
// Codes of 5 and 6 bits, and of 8.
constexpr QuantLayout sixes(int group, bool has_bias, int code_zero) {
  return {6, group, has_bias, code_zero, {}};
}
constexpr QuantLayout bytes(int group, bool has_bias, int code_zero) {
  return {8, group, has_bias, code_zero, {}};
}

// Every type number of ggml (0.9); those without a conversion are refused by name.
constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, true},
    {1, "F16", 1, 2, true},
    {2, "Q4_0", 32, 18, false, nibbles(32, false, 8), DType::f16, convert_q4_0},
    {3, "Q4_1", 32, 20, false, nibbles(32, true, 0), DType::f16, convert_q4_1},
    {6, "Q5_0", 32, 22, false, sixes(32, false, 16), DType::f16, convert_q5_0},
    {7, "Q5_1", 32, 24, false, sixes(32, true, 0), DType::f16, convert_q5_1},
    {8, "Q8_0", 32, 34, false, bytes(32, false, 128), DType::f16, convert_q8_0},
    {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84, false, nibbles(16, true, 0), DType::f32, convert_q2_k},
    {11, "Q3_K", 256, 110, false, nibbles(16, false, 4), DType::f32, convert_q3_k},
    {12, "Q4_K", 256, 144, false, nibbles(32, true, 0), DType::f32, convert_q4_k},
    {13, "Q5_K", 256, 176, false, sixes(32, true, 0), DType::f32, convert_q5_k},
    {14, "Q6_K", 256, 210, false, sixes(16, false, 32), DType::f32, convert_q6_k},
    {15, "Q8_K", 256, 292},
    {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98},
    {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1},
    {25, "I16", 1, 2},
    {26, "I32", 1, 4},
    {27, "I64", 1, 8},
    {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2, true},
    {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},
};

const GgmlType& type_named(std::string_view name) {
  for (const GgmlType& type : kTypes) {
    if (type.name == name) return type;
  }
  throw std::runtime_error("unknown GGUF type " + std::string(name));
}

HostMatrix convert(const StoredTensor& tensor, const GgmlType& type, int64_t n, int64_t k) {
  HostMatrix m;
  m.n = n;
  m.k = k;
  m.quant = type.layout;
  m.scale_dtype = type.scale_dtype;
  const MatrixBytes size = canonical_bytes(n, k, m.dense_dtype, m.quant, m.scale_dtype);
  auto owned = std::make_shared<MatrixOwner>();
  owned->codes.resize(size.codes);
  owned->scales.resize(size.scales);
  if (type.layout.has_bias) owned->biases.resize(size.scales);
  const CanonicalRows rows{reinterpret_cast<uint8_t*>(owned->codes.data()), owned->scales.data(),
                           owned->biases.data()};
  const auto* blocks = reinterpret_cast<const uint8_t*>(tensor.bytes.data());
  const size_t count = tensor.bytes.size() / type.bytes;
  for (size_t i = 0; i < count; ++i) type.convert(blocks + i * type.bytes, rows, i);
  m = own_all(std::move(m), std::move(owned));
  check_scales(m, tensor);
  return m;
}

}  // namespace

const GgmlType* find_ggml_type(uint32_t number) {
  for (const GgmlType& type : kTypes) {
    if (type.number == number) return &type;
  }
  return nullptr;
}

StoredWeight read_gguf_weight(TensorTable& table, const std::string& name, int64_t rows, int64_t cols) {
  const StoredTensor& tensor = table.take(name);
  const GgmlType& type = type_named(tensor.dtype);
  if (type.dense) {
    StoredWeight weight = read_dense(table, name, rows, cols);
    weight.info.format = "GGUF " + tensor.dtype;
    return weight;
  }
  check_shape(tensor, rows, cols);
  StoredWeight weight = describe(tensor, "GGUF " + tensor.dtype, rows, cols);
  weight.load = [&tensor, &type, n = weight.rows, cols] { return convert(tensor, type, n, cols); };
  return weight;
}

}  // namespace tramontane
