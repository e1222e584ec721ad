// The packed order: what the mma manual says that each bit of it means is read back and compared with the
// definition of a weight. Host only.
#include "cuda/pack.h"

#include "tests/cuda/weights.h"

namespace tramontane::cuda {
namespace {

uint32_t load_u32(const std::vector<std::byte>& bytes, size_t at) {
  uint32_t value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// Reads a packed matrix by the text of pack.h and dequant.cuh, from the lane's side: which step, operand
// register and half of it an element is.
class Unpacker {
 public:
  Unpacker(const HostMatrix& m) : m_(m), layout_(packed_layout(m.n, m.k, m.quant, m.scale_dtype)) {
    const PackedBytes bytes = packed_bytes(m);
    codes_.resize(bytes.codes);
    scales_.resize(bytes.scales);
    pack_row_tiles(m, 0, layout_.row_tiles, codes_, scales_);
  }

  // All weights of a tile in BF16 operand terms: [16][64].
  std::vector<float> tile(int64_t row_tile, int64_t k_tile) const {
    std::vector<float> values(16 * 64, NAN);
    for (int lane = 0; lane < 32; ++lane) {
      for (int step = 0; step < 4; ++step) {
        for (int j = 0; j < 4; ++j) {
          for (int half = 0; half < 2; ++half) {
            const int row = lane / 4 + 8 * (j % 2);
            const int k = first_input(format().fold, step, lane % 4) + 2 * (j / 2) + half;
            values[static_cast<size_t>(row * 64 + k)] = element(row_tile, k_tile, lane, step, j, half) * 1.0f;
          }
        }
      }
    }
    return scaled(row_tile, k_tile, values);
  }
  const PackedLayout& layout() const { return layout_; }

 private:
  const PackedFormat& format() const { return layout_.kernel_format(); }

  float element(int64_t row_tile, int64_t k_tile, int lane, int step, int j, int half) const {
    const int words = words_per_tile(format().codes);
    const auto word = [&](int u) {  // the u-th 32-bit word that a lane has of a tile
      const int64_t tile = row_tile * layout_.k_tiles + k_tile;
      return load_u32(codes_, static_cast<size_t>(((tile * words + u / 4) * 32 + lane) * 16 + u % 4 * 4));
    };
    switch (format().codes) {
      case Codes::dense:
        return bf16_to_float(static_cast<uint16_t>(word(4 * step + j) >> (16 * half)));
      case Codes::affine4:
        return table(word(step) >> (4 * j + 16 * half) & 15);
      case Codes::codebook4:
        return table(word(step) >> (16 * (j / 2) + 4 * (j % 2) + 8 * half) & 15);
      case Codes::fp4:
        return table((word(step) >> (16 * (j / 2) + 4 * (j % 2) + 8 * half) & 7) |
                     (word(step) >> (4 * j + 16 * half) & 8));
      case Codes::affine8: {
        const uint32_t code = word(2 * step + j / 2) >> (8 * (j % 2) + 16 * half) & 255;
        return static_cast<float>(static_cast<int>(code) - m_.quant->code_zero);
      }
    }
    return NAN;
  }
  float table(uint32_t code) const { return m_.quant->table[code]; }

  std::vector<float> scaled(int64_t row_tile, int64_t k_tile, std::vector<float> values) const {
    if (!m_.quant) return values;
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < 64; ++k) {
        float& value = values[static_cast<size_t>(row * 64 + k)];
        const int64_t group = (k_tile * 64 + k) / m_.quant->group;
        value *= scale(row_tile, group, row, 0);
        if (m_.quant->has_bias) value += scale(row_tile, group, row, 2);
      }
    }
    return values;
  }
  float scale(int64_t row_tile, int64_t group, int row, int first) const {
    const int entry = bytes_per_scale_entry(format());
    const size_t at = static_cast<size_t>(((row_tile * layout_.groups + group) * 8 + row % 8) * entry) +
                      static_cast<size_t>((first + row / 8) * format().scale_bytes);
    if (format().scale_bytes == 4) return std::bit_cast<float>(load_u32(scales_, at));
    uint16_t bits;
    std::memcpy(&bits, scales_.data() + at, sizeof bits);
    return layout_.bf16_scales ? bf16_to_float(bits) : f16_to_float(bits);
  }

  const HostMatrix& m_;
  PackedLayout layout_;
  std::vector<std::byte> codes_, scales_;
};

// n and k that fill tiles, and that do not.
void check_round_trip(const WeightFormat& format, int64_t n, int64_t k) {
  const HostMatrix m = random_matrix(format, n, k, 5);
  const Unpacker unpacker(m);
  for (int64_t row_tile = 0; row_tile < unpacker.layout().row_tiles; ++row_tile) {
    for (int64_t k_tile = 0; k_tile < unpacker.layout().k_tiles; ++k_tile) {
      const std::vector<float> tile = unpacker.tile(row_tile, k_tile);
      for (int64_t row = 0; row < 16; ++row) {
        const bool row_there = row_tile * 16 + row < n;
        const std::vector<float> want =
            row_there ? exact_row(m, row_tile * 16 + row) : std::vector<float>(static_cast<size_t>(k), 0.0f);
        for (int64_t i = 0; i < 64; ++i) {
          const int64_t at = k_tile * 64 + i;
          ASSERT_EQ(tile[static_cast<size_t>(row * 64 + i)], at < k ? want[static_cast<size_t>(at)] : 0.0f)
              << format.name << ": row " << row_tile * 16 + row << ", input " << at;
        }
      }
    }
  }
}

TEST(Pack, EveryElementIsWhereTheMmaWantsIt) {
  for (const WeightFormat& format : weight_formats()) {
    check_round_trip(format, 32, 256);
    check_round_trip(format, 37, format.quant ? int64_t{format.quant->group} * 3 : 70);
  }
}

TEST(Pack, DenseRowsOfAnyWidth) {
  for (const int64_t k : {1, 3, 63, 65}) check_round_trip(weight_format("bf16"), 5, k);
}

TEST(Pack, PiecesAreTheWhole) {
  const HostMatrix m = random_matrix(weight_format("q4_1"), 100, 96, 6);
  const PackedBytes bytes = packed_bytes(m);
  std::vector<std::byte> codes(bytes.codes), scales(bytes.scales), one_codes(bytes.codes / 7),
      one_scales(bytes.scales / 7);
  pack_row_tiles(m, 0, 7, codes, scales);
  for (int64_t tile = 0; tile < 7; ++tile) {
    pack_row_tiles(m, tile, 1, one_codes, one_scales);
    EXPECT_EQ(std::memcmp(one_codes.data(), codes.data() + static_cast<size_t>(tile) * one_codes.size(),
                          one_codes.size()),
              0);
    EXPECT_EQ(std::memcmp(one_scales.data(), scales.data() + static_cast<size_t>(tile) * one_scales.size(),
                          one_scales.size()),
              0);
  }
}

// Four bits stay four bits: bytes for 7B's widest matrix are the file's own.
TEST(Pack, BytesAreThoseOfTheFile) {
  const auto bits_per_weight = [](const char* name) {
    const WeightFormat& format = weight_format(name);
    HostMatrix m;
    m.n = 14336, m.k = 4096, m.quant = format.quant, m.scale_dtype = format.dtype;
    const PackedBytes bytes = packed_bytes(m);
    return static_cast<double>(bytes.codes + bytes.scales) * 8 / (14336.0 * 4096);
  };
  EXPECT_EQ(bits_per_weight("bf16"), 16);
  EXPECT_EQ(bits_per_weight("fp4"), 4.5);
  EXPECT_EQ(bits_per_weight("nf4"), 4.5);
  EXPECT_EQ(bits_per_weight("mlx4_g64"), 4.5);
  EXPECT_EQ(bits_per_weight("mlx4_g128"), 4.25);
  EXPECT_EQ(bits_per_weight("mlx8_g64"), 8.5);
  EXPECT_EQ(bits_per_weight("q4_0"), 4.5);
  EXPECT_EQ(bits_per_weight("q4_1"), 5);
  EXPECT_EQ(bits_per_weight("q8_0"), 8.5);
  EXPECT_EQ(bits_per_weight("q6_k"), 10);
}

TEST(Pack, RefusesByNameWhatNoKernelHas) {
  const auto message = [](const QuantLayout& layout) -> std::string {
    try {
      packed_layout(16, 64, layout, DType::f16);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(
      message(affine8(32, false, 31)),
      "cuda: no kernel for 8-bit codes, groups of 32, code_zero 31: code_zero of 6- and 8-bit codes must "
      "be even, 0 to 128");
  QuantLayout codebook = nf4(64);
  codebook.has_bias = true;
  EXPECT_EQ(message(codebook),
            "cuda: no kernel for 4-bit codes, groups of 64, biases, code_zero 0: a codebook has no biases");
  EXPECT_EQ(
      message(affine4(8, false, 0)),
      "cuda: no kernel for 4-bit codes, groups of 8, code_zero 0: groups are powers of two, 16 and more");
}

}  // namespace
}  // namespace tramontane::cuda
