// Weight matrices of every format for tests of the packed products, and their copies in device memory.
#pragma once

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda/linear.h"
#include "engine/backend/matrix.h"

namespace tramontane::cuda {

struct WeightFormat {
  std::string name;
  std::optional<QuantLayout> quant;
  DType dtype;     // of dense weights, or of scales
  int most = 255;  // largest code
  double table_rounding =
      0;  // relative, of tables that are not exact in BF16: half a unit in the last of 8 bits
};

inline QuantLayout affine4(int group, bool bias, int zero) {
  QuantLayout layout{.bits = 4, .group = group, .has_bias = bias, .code_zero = zero, .table = {}};
  for (int i = 0; i < 16; ++i) layout.table[static_cast<size_t>(i)] = static_cast<float>(i - zero);
  return layout;
}
inline QuantLayout affine8(int group, bool bias, int zero) {
  return {.bits = 8, .group = group, .has_bias = bias, .code_zero = zero, .table = {}};
}
inline QuantLayout affine6(int group, bool bias, int zero) {
  return {.bits = 6, .group = group, .has_bias = bias, .code_zero = zero, .table = {}};
}
inline QuantLayout fp4(int group) {
  QuantLayout layout{.bits = 4, .group = group, .has_bias = false, .code_zero = 0, .table = {}};
  const float numerators[8] = {0, 1, 128, 192, 64, 96, 32, 48};
  for (size_t i = 0; i < 16; ++i) layout.table[i] = (i < 8 ? 1.0f : -1.0f) * numerators[i % 8] / 192.0f;
  return layout;
}
inline QuantLayout nf4(int group) {
  return {.bits = 4,
          .group = group,
          .has_bias = false,
          .code_zero = 0,
          .table = {-1.0f, -0.69619280f, -0.52507305f, -0.39491749f, -0.28444138f, -0.18477343f, -0.09105004f,
                    0.0f, 0.07958030f, 0.16093020f, 0.24611230f, 0.33791524f, 0.44070983f, 0.56261700f,
                    0.72295684f, 1.0f}};
}

// Every file format by name, then layouts that take a kernel made for another one.
inline std::vector<WeightFormat> weight_formats() {
  return {{"bf16", {}, DType::bf16},
          {"f16", {}, DType::f16},
          {"f32", {}, DType::f32},
          {"fp4", fp4(64), DType::f32},
          {"nf4", nf4(64), DType::f32, 255, 0x1p-8},
          {"mlx4_g64", affine4(64, true, 0), DType::bf16},
          {"mlx4_g32", affine4(32, true, 0), DType::bf16},
          {"mlx4_g128", affine4(128, true, 0), DType::f16},
          {"mlx8_g64", affine8(64, true, 0), DType::bf16},
          {"mlx6_g32", affine6(32, true, 0), DType::f16, 63},
          {"q4_0", affine4(32, false, 8), DType::f16},
          {"q4_1", affine4(32, true, 0), DType::f16},
          {"q5_0", affine6(32, false, 16), DType::f16, 31},
          {"q8_0", affine8(32, false, 128), DType::f16},
          {"q2_k", affine4(16, true, 0), DType::f32},
          {"q3_k", affine4(16, false, 4), DType::f32},
          {"q4_k", affine4(32, true, 0), DType::f32},
          {"q5_k", affine6(32, true, 0), DType::f32, 31},
          {"q6_k", affine6(16, false, 32), DType::f32, 63},
          {"fp4_g128", fp4(128), DType::f32},
          {"fp4_g32", fp4(32), DType::f32, 255, 0x1p-8},
          {"nf4_g16_f16", nf4(16), DType::f16, 255, 0x1p-8},
          {"affine4_g128_f32", affine4(128, true, 0), DType::f32},
          {"affine4_g64_f16", affine4(64, false, 8), DType::f16},
          {"affine8_g16_bias_f16", affine8(16, true, 0), DType::f16},
          {"affine8_g128_f32", affine8(128, false, 128), DType::f32}};
}

inline const WeightFormat& weight_format(const std::string& name) {
  static const std::vector<WeightFormat> formats = weight_formats();
  for (const WeightFormat& format : formats) {
    if (format.name == name) return format;
  }
  throw std::runtime_error("no weight format " + name);
}

namespace weights_detail {

struct Owned {
  std::vector<std::byte> codes, scales, biases;
};

// Normal numbers of either sign, or positive, whose size is 1/16 to 1.
inline std::vector<std::byte> numbers(size_t count, DType dtype, std::mt19937& random, bool negative) {
  std::vector<std::byte> bytes(count * size_of(dtype));
  for (size_t i = 0; i < count; ++i) {
    const auto half = static_cast<uint16_t>((negative && random() % 2 ? 0x8000u : 0u) |
                                            (11 + random() % 4) << 10 | random() % 1024);
    const float value = dtype == DType::f32 ? f16_to_float(half) * 1.2345678f : f16_to_float(half);
    const uint16_t bits = dtype == DType::f16 ? half : float_to_bf16(value);
    std::memcpy(bytes.data() + i * size_of(dtype),
                dtype == DType::f32 ? static_cast<const void*>(&value) : &bits, size_of(dtype));
  }
  return bytes;
}

}  // namespace weights_detail

inline HostMatrix random_matrix(const WeightFormat& format, int64_t n, int64_t k, uint32_t seed) {
  std::mt19937 random(seed);
  auto owned = std::make_shared<weights_detail::Owned>();
  const auto count = static_cast<size_t>(n * k);
  HostMatrix m;
  m.n = n, m.k = k, m.quant = format.quant;
  if (!format.quant) {
    m.dense_dtype = format.dtype;
    owned->codes = weights_detail::numbers(count, format.dtype, random, true);
  } else {
    const QuantLayout& q = *format.quant;
    const size_t groups = count / static_cast<size_t>(q.group);
    m.scale_dtype = format.dtype;
    owned->codes.resize(q.bits == 4 ? count / 2 : count);
    const unsigned limit = q.bits == 4 ? 256u : static_cast<unsigned>(format.most) + 1;
    for (std::byte& code : owned->codes) code = static_cast<std::byte>((random() >> 7) % limit);
    owned->scales = weights_detail::numbers(groups, format.dtype, random, false);
    if (q.has_bias) owned->biases = weights_detail::numbers(groups, format.dtype, random, true);
  }
  m.codes = owned->codes, m.scales = owned->scales, m.biases = owned->biases;
  m.owner = std::move(owned);
  check_canonical(m);
  return m;
}

// Packs on the host, piece by piece, and copies to the device, as the backend does.
inline Matrix upload(const HostMatrix& host, int64_t tiles_at_once = 3) {
  const PackedBytes bytes = packed_bytes(host);
  const int64_t tiles = (host.n + 15) / 16;
  std::vector<std::byte> codes(bytes.codes), scales(bytes.scales);
  for (int64_t first = 0; first < tiles; first += tiles_at_once) {
    const int64_t count = std::min(tiles_at_once, tiles - first);
    const auto share = [&](std::vector<std::byte>& all) {
      const size_t each = all.size() / static_cast<size_t>(tiles);
      return std::span(all).subspan(static_cast<size_t>(first) * each, static_cast<size_t>(count) * each);
    };
    pack_row_tiles(host, first, count, share(codes), share(scales));
  }
  const auto copy = [](const std::vector<std::byte>& from) {
    if (from.empty()) return Buffer();
    void* data = nullptr;
    EXPECT_EQ(cudaMalloc(&data, from.size()), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(data, from.data(), from.size(), cudaMemcpyHostToDevice), cudaSuccess);
    return Buffer(static_cast<std::byte*>(data), from.size(), [](std::byte* p, size_t) { cudaFree(p); });
  };
  Matrix m;
  m.n = host.n, m.k = host.k, m.dense_dtype = host.dense_dtype, m.quant = host.quant;
  m.scale_dtype = host.scale_dtype;
  m.codes = copy(codes), m.scales = copy(scales);
  return m;
}

// Row n as the backend defines it: dense weights rounded once to BF16.
inline std::vector<float> exact_row(const HostMatrix& m, int64_t n) {
  std::vector<float> row(static_cast<size_t>(m.k));
  dequantize_row(m, n, row);
  if (!m.quant) {
    for (float& value : row) value = bf16_to_float(float_to_bf16(value));
  }
  return row;
}

}  // namespace tramontane::cuda
