// printf and assert of device code: the calls to vprintf and __assertfail.
#include <cstdio>
#include <cstring>

#include "tests/cuda_emulator/ops/control.h"

namespace tramontane::emulator {
namespace {

template <class T>
T local_value(Warp& warp, const Instruction& i, int lane, u64 address, ptx::Space space) {
  T value;
  std::memcpy(&value, resolve(warp, i, lane, address, sizeof(T), space, Access::kRead), sizeof(T));
  return value;
}

// A parameter variable of the call: operand k is its address in local memory.
template <class T>
T parameter(Warp& warp, const Instruction& i, int lane, u32 k) {
  return local_value<T>(warp, i, lane, lanes<u64>(warp, i.operands[k])[lane], ptx::Space::kLocal);
}

std::string text_at(Warp& warp, const Instruction& i, int lane, u64 address) {
  std::string text;
  while (const char c = local_value<char>(warp, i, lane, address++, ptx::Space::kGlobal)) text += c;
  return text;
}

// One conversion of a format, from its '%' on.
std::string conversion_at(const std::string& format, std::size_t at) {
  const std::size_t end = format.find_first_of("diouxXeEfFgGaAcsp", at + 1);
  return format.substr(at, end == format.npos ? format.npos : end - at + 1);
}

template <class T>
std::string formatted(const std::string& conversion, T value) {
  char text[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  std::snprintf(text, sizeof text, conversion.c_str(), value);
#pragma GCC diagnostic pop
  return text;
}

// The value that a conversion names, taken from the argument buffer as a C compiler lays it out.
std::string one_value(Warp& warp, const Instruction& i, int lane, const std::string& conversion,
                      u64& buffer) {
  const char kind = conversion.back();
  const bool is_float = std::strchr("eEfFgGaA", kind) != nullptr;
  const bool is_wide = is_float || kind == 's' || kind == 'p' || conversion.find('l') != conversion.npos ||
                       conversion.find('z') != conversion.npos;
  if (is_wide) buffer = (buffer + 7) / 8 * 8;
  const u64 at = buffer;
  buffer += is_wide ? 8 : 4;
  if (is_float) return formatted(conversion, local_value<f64>(warp, i, lane, at, ptx::Space::kGlobal));
  if (!is_wide) return formatted(conversion, local_value<u32>(warp, i, lane, at, ptx::Space::kGlobal));
  const u64 value = local_value<u64>(warp, i, lane, at, ptx::Space::kGlobal);
  if (kind == 's') return formatted(conversion, text_at(warp, i, lane, value).c_str());
  return formatted(conversion, value);
}

}  // namespace

void print(Warp& warp, const Instruction& i, LaneMask mask) {
  for_each_lane(mask, [&](int lane) {
    const std::string format = text_at(warp, i, lane, parameter<u64>(warp, i, lane, 1));
    u64 buffer = parameter<u64>(warp, i, lane, 2);
    std::string output;
    for (std::size_t at = 0; at < format.size(); ++at) {
      if (format[at] != '%') {
        output += format[at];
      } else if (at + 1 < format.size() && format[at + 1] == '%') {
        output += format[at++];
      } else {
        const std::string conversion = conversion_at(format, at);
        output += one_value(warp, i, lane, conversion, buffer);
        at += conversion.size() - 1;
      }
    }
    std::fputs(output.c_str(), stdout);
    const u64 result = lanes<u64>(warp, i.operands[0])[lane];
    std::memset(resolve(warp, i, lane, result, 4, ptx::Space::kLocal, Access::kWrite), 0, 4);
  });
}

// void __assertfail(const char* message, const char* file, unsigned line, const char* function, size_t
// char_size)
void assert_fail(Warp& warp, const Instruction& i, LaneMask mask) {
  const int lane = __builtin_ctz(mask);
  const std::string message = text_at(warp, i, lane, parameter<u64>(warp, i, lane, 1));
  const std::string file = text_at(warp, i, lane, parameter<u64>(warp, i, lane, 2));
  const u32 line = parameter<u32>(warp, i, lane, 3);
  fault(warp, i, lane, cudaErrorAssert,
        file + ":" + std::to_string(line) + ": assertion '" + message + "' failed");
}

}  // namespace tramontane::emulator
