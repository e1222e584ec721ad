#include "tests/cuda_emulator/options.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

#include "tests/cuda_emulator/runtime/errors.h"

namespace tramontane::emulator {
namespace {

template <class T>
T number(std::string_view name, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size())
    throw std::invalid_argument("emulator option " + std::string(name) + ": expected a number, got '" +
                                std::string(text) + "'");
  return value;
}

StreamOrder stream_order(std::string_view text) {
  if (text == "random") return StreamOrder::kRandom;
  if (text == "late") return StreamOrder::kLate;
  if (text == "eager") return StreamOrder::kEager;
  throw std::invalid_argument("emulator option STREAMS: expected random, late or eager, got '" +
                              std::string(text) + "'");
}

bool is_out_of_memory_call(std::string_view name) {
  return name.starts_with("cudaMalloc") || name == "cudaHostAlloc";
}

// NAME:COUNT or NAME:COUNT:ERROR; nothing switches it off.
Injection injection(std::string_view option, std::string_view text, cudaError_t usual) {
  Injection result;
  if (text.empty()) return result;
  const std::size_t first = text.find(':');
  if (first == text.npos || first == 0)
    throw std::invalid_argument("emulator option " + std::string(option) +
                                ": expected name:count[:error], got '" + std::string(text) + "'");
  const std::size_t second = std::min(text.find(':', first + 1), text.size());
  result.name = text.substr(0, first);
  result.countdown = number<u64>(option, text.substr(first + 1, second - first - 1));
  result.error = is_out_of_memory_call(result.name) ? cudaErrorMemoryAllocation : usual;
  if (second == text.size()) return result;
  const auto error = error_named(text.substr(second + 1));
  if (!error)
    throw std::invalid_argument("emulator option " + std::string(option) + ": unknown error '" +
                                std::string(text.substr(second + 1)) + "'");
  result.error = *error;
  return result;
}

u32 compute_capability(std::string_view text) {
  for (const std::string_view known : {"75", "80", "86", "89", "90"})
    if (text == known) return number<u32>("COMPUTE", text);
  throw std::invalid_argument("emulator option COMPUTE: expected 75, 80, 86, 89 or 90, got '" +
                              std::string(text) + "'");
}

void assign(Options& o, const std::string& name, std::string_view value) {
  if (name == "SEED")
    o.seed = number<u64>(name, value);
  else if (name == "THREADS")
    o.threads = number<u32>(name, value);
  else if (name == "MEMORY")
    o.memory = number<u64>(name, value);
  else if (name == "GRAPH_MEMORY")
    o.graph_memory = number<u64>(name, value);
  else if (name == "STREAMS")
    o.streams = stream_order(value);
  else if (name == "MEMCHECK")
    o.memcheck = number<int>(name, value) != 0;
  else if (name == "RACECHECK")
    o.racecheck = number<int>(name, value) != 0;
  else if (name == "SYNCCHECK")
    o.synccheck = number<int>(name, value) != 0;
  else if (name == "INITCHECK")
    o.initcheck = number<int>(name, value) != 0;
  else if (name == "DEVICES")
    o.devices = number<u32>(name, value);
  else if (name == "DRIVER")
    o.driver = number<int>(name, value);
  else if (name == "COMPUTE")
    o.compute = compute_capability(value);
  else if (name == "FAIL_CALL")
    o.fail_call = injection(name, value, cudaErrorUnknown);
  else if (name == "FAIL_LAUNCH")
    o.fail_launch = injection(name, value, cudaErrorLaunchOutOfResources);
  else if (name == "FAIL_RUN")
    o.fail_run = injection(name, value, cudaErrorLaunchFailure);
  else if (name == "WATCHDOG")
    o.watchdog = number<u64>(name, value);
  else
    throw std::invalid_argument("unknown emulator option '" + name + "'");
}

Options from_environment() {
  Options o;
  for (const char* name :
       {"SEED", "THREADS", "MEMORY", "GRAPH_MEMORY", "STREAMS", "MEMCHECK", "RACECHECK", "SYNCCHECK",
        "INITCHECK", "DEVICES", "DRIVER", "COMPUTE", "FAIL_CALL", "FAIL_LAUNCH", "FAIL_RUN", "WATCHDOG"})
    if (const char* value = std::getenv(("CUDA_EMULATOR_" + std::string(name)).c_str()))
      assign(o, name, value);
  return o;
}

}  // namespace

Options& options() {
  static Options instance = from_environment();
  return instance;
}

void set_option(std::string_view name, std::string_view value) {
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  assign(options(), upper, value);
}

}  // namespace tramontane::emulator
