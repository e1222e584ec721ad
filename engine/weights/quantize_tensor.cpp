#include "engine/weights/quantize_tensor.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

namespace tramontane {
namespace {

constexpr int64_t kWave = 1 << 24;   // elements between two calls of progress: a fraction of a second
constexpr int64_t kAlone = 1 << 16;  // fewer elements are not worth a thread
constexpr size_t kWeight = 0, kScales = 1, kBiases = 2;  // places in what specs_of lists

uint64_t elements_of(const TensorPlan& plan) {
  return static_cast<uint64_t>(std::max<int64_t>(plan.rows, 1) * plan.cols);
}

std::string type_name(const TensorPlan& plan) {
  return plan.encoding == Encoding::fp4 ? "fp4" : "nf4";
}

// torch's name, as quant_state spells it.
std::string torch_name(DType dtype) {
  return dtype == DType::bf16 ? "bfloat16" : dtype == DType::f16 ? "float16" : "float32";
}

// Python's json.dumps of the dict that bitsandbytes packs.
std::string quant_state(const TensorPlan& plan) {
  return R"({"quant_type": ")" + type_name(plan) + R"(", "blocksize": )" + std::to_string(plan.group) +
         R"(, "dtype": ")" + torch_name(plan.dtype) + R"(", "shape": [)" + std::to_string(plan.rows) + ", " +
         std::to_string(plan.cols) + "]}";
}

std::vector<TensorSpec> bitsandbytes_specs(const TensorPlan& plan) {
  const auto n = static_cast<int64_t>(elements_of(plan));
  const int64_t blocks = n / plan.group;
  const auto state = static_cast<int64_t>(quant_state(plan).size());
  return {{plan.name, "U8", {n / 2, 1}, static_cast<uint64_t>(n / 2)},
          {plan.name + ".absmax", "F32", {blocks}, static_cast<uint64_t>(blocks) * sizeof(float)},
          {plan.name + ".quant_map", "F32", {16}, 16 * sizeof(float)},
          {plan.name + ".quant_state.bitsandbytes__" + type_name(plan),
           "U8",
           {state},
           static_cast<uint64_t>(state)}};
}

std::vector<TensorSpec> mlx_specs(const TensorPlan& plan) {
  const std::string module = plan.name.substr(0, plan.name.size() - std::strlen(".weight"));
  const int64_t words = plan.cols * plan.bits / 32, groups = plan.cols / plan.group;
  const std::string dtype(name_of(plan.dtype));
  const auto scale_bytes = static_cast<uint64_t>(plan.rows * groups) * size_of(plan.dtype);
  return {{plan.name, "U32", {plan.rows, words}, static_cast<uint64_t>(plan.rows * words) * 4},
          {module + ".scales", dtype, {plan.rows, groups}, scale_bytes},
          {module + ".biases", dtype, {plan.rows, groups}, scale_bytes}};
}

void store(DType dtype, float value, std::byte* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, &value, sizeof value);
    return;
  }
  const uint16_t bits = dtype == DType::bf16 ? float_to_bf16(value) : float_to_f16(value);
  std::memcpy(out, &bits, sizeof bits);
}

float rounded(DType dtype, float value) {
  if (dtype == DType::bf16) return bf16_to_float(float_to_bf16(value));
  return dtype == DType::f16 ? f16_to_float(float_to_f16(value)) : value;
}

// Turns rows into bytes; rows are independent, so threads may share one encoder.
class RowEncoder {
 public:
  RowEncoder(const TensorPlan& plan, std::vector<std::vector<std::byte>>& out) : plan_(plan), out_(out) {}

  void encode(int64_t row, std::span<float> values) const {
    for (float& value : values) {
      value = rounded(plan_.dtype, value);
      if (!std::isfinite(value)) {
        throw std::runtime_error("tensor " + plan_.name + ", row " + std::to_string(row) +
                                 " holds a weight that is not finite as " +
                                 std::string(name_of(plan_.dtype)));
      }
    }
    switch (plan_.encoding) {
      case Encoding::dense:
        return encode_dense(row, values);
      case Encoding::fp4:
      case Encoding::nf4:
        return encode_bitsandbytes(row, values);
      case Encoding::mlx:
        return encode_mlx(row, values);
    }
  }

 private:
  void encode_dense(int64_t row, std::span<const float> values) const {
    const size_t width = size_of(plan_.dtype);
    std::byte* out = out_[kWeight].data() + static_cast<size_t>(row) * values.size() * width;
    for (size_t i = 0; i < values.size(); ++i) store(plan_.dtype, values[i], out + i * width);
  }

  void encode_bitsandbytes(int64_t row, std::span<const float> values) const {
    const auto type = plan_.encoding == Encoding::fp4 ? FourBit::fp4 : FourBit::nf4;
    const auto group = static_cast<size_t>(plan_.group);
    const size_t first = static_cast<size_t>(row) * values.size();
    auto* codes = reinterpret_cast<uint8_t*>(out_[kWeight].data()) + first / 2;
    for (size_t i = 0; i < values.size(); i += group) {
      const float absmax = quantize_bitsandbytes_block(values.subspan(i, group), type, codes + i / 2);
      store(DType::f32, absmax, out_[kScales].data() + (first + i) / group * sizeof absmax);
    }
  }

  void encode_mlx(int64_t row, std::span<const float> values) const {
    const auto group = static_cast<size_t>(plan_.group), bits = static_cast<size_t>(plan_.bits);
    const size_t first = static_cast<size_t>(row) * values.size(), width = size_of(plan_.dtype);
    std::vector<uint8_t> codes(group);
    for (size_t i = 0; i < values.size(); i += group) {
      const AffineGroup affine = quantize_mlx_group(values.subspan(i, group), plan_.bits, codes.data());
      pack_bit_stream(codes, plan_.bits,
                      reinterpret_cast<uint8_t*>(out_[kWeight].data()) + (first + i) / 8 * bits);
      store(plan_.dtype, affine.scale, out_[kScales].data() + (first + i) / group * width);
      store(plan_.dtype, affine.bias, out_[kBiases].data() + (first + i) / group * width);
    }
  }

  const TensorPlan& plan_;
  std::vector<std::vector<std::byte>>& out_;
};

// Calls `work` for the rows [begin, end) on `threads` threads; the first exception is thrown again here.
void parallel_rows(int64_t begin, int64_t end, int threads, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next = begin;
  std::exception_ptr failure;
  std::mutex mutex;
  const auto run = [&] {
    try {
      for (int64_t row = next++; row < end; row = next++) work(row);
    } catch (...) {
      next = end;
      const std::scoped_lock lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (int i = 1; i < threads; ++i) others.emplace_back(run);
    run();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

uint16_t float_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // 65520: halfway to what would be 2^16
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 0.5 rounds to a multiple of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t even = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | (even - 0x38000000u) >> 13);
}

std::vector<TensorSpec> specs_of(const TensorPlan& plan) {
  if (plan.encoding == Encoding::mlx) return mlx_specs(plan);
  if (plan.encoding != Encoding::dense) return bitsandbytes_specs(plan);
  const auto shape = plan.rows == 0 ? std::vector{plan.cols} : std::vector{plan.rows, plan.cols};
  return {{plan.name, std::string(name_of(plan.dtype)), shape, elements_of(plan) * size_of(plan.dtype)}};
}

std::vector<std::vector<std::byte>> encode_tensor(const TensorPlan& plan, const RowReader& read, int threads,
                                                  const RowProgress& progress) {
  std::vector<std::vector<std::byte>> out;
  for (const TensorSpec& spec : specs_of(plan)) out.emplace_back(spec.bytes);
  const RowEncoder encoder(plan, out);
  const auto encode_row = [&](int64_t row) {
    thread_local std::vector<float> values;
    values.resize(static_cast<size_t>(plan.cols));
    read(row, values);
    encoder.encode(row, values);
  };
  const int64_t rows = std::max<int64_t>(plan.rows, 1), wave = std::max<int64_t>(kWave / plan.cols, 1);
  if (rows * plan.cols < kAlone) threads = 1;
  for (int64_t row = 0; row < rows; row += wave) {
    parallel_rows(row, std::min(row + wave, rows), threads, encode_row);
    progress(std::min(row + wave, rows));
  }
  if (plan.encoding == Encoding::fp4 || plan.encoding == Encoding::nf4) {
    const auto& table = bitsandbytes_table(plan.encoding == Encoding::fp4 ? FourBit::fp4 : FourBit::nf4);
    std::memcpy(out[2].data(), table.data(), sizeof table);
    const std::string state = quant_state(plan);
    std::memcpy(out[3].data(), state.data(), state.size());
  }
  return out;
}

}  // namespace tramontane
