#include "tests/cuda_emulator/options.h"

#include <cctype>
#include <charconv>
#include <cstdlib>
#include <stdexcept>

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

void assign(Options& o, const std::string& name, std::string_view value) {
  if (name == "SEED")
    o.seed = number<u64>(name, value);
  else if (name == "THREADS")
    o.threads = number<u32>(name, value);
  else if (name == "MEMORY")
    o.memory = number<u64>(name, value);
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
  else if (name == "WATCHDOG")
    o.watchdog = number<u64>(name, value);
  else
    throw std::invalid_argument("unknown emulator option '" + name + "'");
}

Options from_environment() {
  Options o;
  for (const char* name : {"SEED", "THREADS", "MEMORY", "STREAMS", "MEMCHECK", "RACECHECK", "SYNCCHECK",
                           "INITCHECK", "WATCHDOG"})
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
