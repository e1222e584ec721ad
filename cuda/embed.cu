// Rows read back out of the packed order: those of a step's tokens as FP32, one thread an element, since a
// step has few rows and a row is less than any weight; and whole matrices as BF16 for cuBLAS, one thread 8
// elements.
#include "cuda/check.cuh"
#include "cuda/cublas_gemm.h"
#include "cuda/dequant.cuh"
#include "cuda/kernel_setup.h"
#include "cuda/linear.h"
#include "cuda/linear_launch.h"

namespace tramontane::cuda {
namespace {

constexpr int kThreads = 256;  // 7B: 16 blocks a row, so that even one token's loads spread over 16 SMs

// How values are spelled: the layout's own table, not its BF16 rounding.
struct Spelling {
  PackedFormat format;
  bool has_bias;
  float table[16];
  float code_zero;
};

struct Place {
  const std::byte* word;  // 32 bits that hold the element
  int lower, pair, half;  // row 8 .. 15 of the tile; which of the lane's two pairs; which of the pair
};

__device__ Place find(const PackedWeight& w, const PackedFormat& f, int row, int k) {
  const int in_tile = k % kTileK;
  int step, t;
  if (f.fold == 16) {
    step = in_tile / 16, t = in_tile % 16 / 4;
  } else {
    step = in_tile / 32 * 2 + in_tile % 8 / 4, t = in_tile % 32 / 8;
  }
  Place p{};
  p.lower = row % kTileRows / 8, p.pair = k % 4 / 2, p.half = k % 2;
  const int lane = row % 8 * 4 + t, words = words_per_tile(f.codes);
  const int in_step = f.codes == Codes::dense ? 2 * p.pair + p.lower : f.codes == Codes::affine8 ? p.pair : 0;
  const int word = step * words + in_step;
  const int64_t tile = int64_t{row / kTileRows} * w.k_tiles + k / kTileK;
  p.word = w.codes + ((tile * words + word / 4) * kLanes + lane) * kWordBytes + word % 4 * 4;
  return p;
}

__device__ float unscaled(const Spelling& s, const Place& p) {
  const uint32_t word = *reinterpret_cast<const uint32_t*>(p.word);
  const int affine = 2 * p.pair + p.lower + 4 * p.half, codebook = 4 * p.pair + p.lower + 2 * p.half;
  switch (s.format.codes) {
    case Codes::dense:
      return __uint_as_float(word >> (16 * p.half) << 16);
    case Codes::affine4:
      return s.table[word >> (4 * affine) & 15];
    case Codes::codebook4:
      return s.table[word >> (4 * codebook) & 15];
    case Codes::fp4:
      return s.table[(word >> (4 * codebook) & 7) | (word >> (4 * affine) & 8)];
    case Codes::affine8:
      return __fsub_rn(static_cast<float>(word >> (8 * (2 * p.half + p.lower)) & 255), s.code_zero);
  }
  return 0;
}

__device__ float read_scale(const PackedWeight& w, const PackedFormat& f, const std::byte* entry, int index) {
  if (f.scale_bytes == 4) return reinterpret_cast<const float*>(entry)[index];
  const uint32_t bits = reinterpret_cast<const uint16_t*>(entry)[index];
  return two_floats(bits, w.bf16_scales).x;
}

struct Scale {
  float scale = 1, bias = 0;
};

// Of a row's fold: the same for all elements of it.
__device__ Scale find_scale(const PackedWeight& w, const Spelling& s, int row, int k) {
  if (s.format.codes == Codes::dense) return {};
  const int group = k / s.format.fold >> w.group_shift, lower = row % kTileRows / 8;
  const int64_t index = (int64_t{row / kTileRows} * w.groups + group) * 8 + row % 8;
  const std::byte* entry = w.scales + index * bytes_per_scale_entry(s.format);
  Scale scale{read_scale(w, s.format, entry, lower)};
  if (s.has_bias) scale.bias = read_scale(w, s.format, entry, 2 + lower);
  return scale;
}

__device__ float element(const Spelling& s, const Place& place, const Scale& scale) {
  const float value = unscaled(s, place);
  if (s.format.codes == Codes::dense) return value;
  const float scaled = __fmul_rn(value, scale.scale);
  return s.has_bias ? __fadd_rn(scaled, scale.bias) : scaled;
}

__global__ void __launch_bounds__(kThreads)
    embed_kernel(const __grid_constant__ PackedWeight w, const __grid_constant__ Spelling s,
                 const int32_t* __restrict__ tokens, float* x, int64_t stride) {
  // Rows are blockIdx.x: of blockIdx.y there are 65535, and a step may have more.
  const int k = blockIdx.y * kThreads + threadIdx.x, row = tokens[blockIdx.x];
  if (k >= w.k) return;
  x[blockIdx.x * stride + k] = element(s, find(w, s.format, row, k), find_scale(w, s, row, k));
}

// A thread writes one 16-byte word, which lies in one fold. Words are counted through the rows, so that
// blocks are full whatever K is.
constexpr int kUnpacked = 8;

__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const __grid_constant__ PackedWeight w, const __grid_constant__ Spelling s, int first,
                  int64_t words, uint4* __restrict__ rows) {
  const int64_t at = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (at >= words) return;
  const int per_row = w.k / kUnpacked;
  const int row = first + static_cast<int>(at / per_row), k = static_cast<int>(at % per_row) * kUnpacked;
  const Scale scale = find_scale(w, s, row, k);
  uint32_t pairs[kUnpacked / 2];
#pragma unroll
  for (int i = 0; i < kUnpacked / 2; ++i) {
    Place place = find(w, s.format, row, k + 2 * i);  // an even element: the first of its pair
    const float low = element(s, place, scale);
    place.half = 1;
    pairs[i] = ptx::pack_bf16x2(low, element(s, place, scale));
  }
  rows[at] = {pairs[0], pairs[1], pairs[2], pairs[3]};
}

Spelling spelling(const Matrix& m, int format) {
  Spelling s{};
  s.format = kFormats[format];
  if (m.quant) {
    s.has_bias = m.quant->has_bias;
    s.code_zero = static_cast<float>(m.quant->code_zero);
    for (int i = 0; i < 16; ++i) s.table[i] = m.quant->table[static_cast<size_t>(i)];
  }
  return s;
}

}  // namespace

void load_row_kernels() {
  load_kernel(embed_kernel, 0, "embed");
  load_kernel(unpack_kernel, 0, "unpack");
}

void launch_embed(Stream stream, TensorView tokens, const Matrix& table, TensorView x) {
  if (x.rows == 0) return;
  int format = 0;
  const PackedWeight w = packed_weight(table, format);
  const dim3 grid(static_cast<unsigned>(x.rows), (w.k + kThreads - 1) / kThreads);
  embed_kernel<<<grid, kThreads, 0, stream>>>(w, spelling(table, format), tokens.row<const int32_t>(0),
                                              x.row<float>(0), x.row_stride);
  check_launch("embed");
}

void launch_unpack(Stream stream, const Matrix& m, int64_t first, TensorView rows) {
  if (rows.rows == 0) return;
  int format = 0;
  const PackedWeight w = packed_weight(m, format);
  const int64_t words = rows.rows * w.k / kUnpacked;
  const auto blocks = static_cast<unsigned>((words + kThreads - 1) / kThreads);
  unpack_kernel<<<blocks, kThreads, 0, stream>>>(w, spelling(m, format), static_cast<int>(first), words,
                                                 reinterpret_cast<uint4*>(rows.data));
  check_launch("unpack");
}

}  // namespace tramontane::cuda
