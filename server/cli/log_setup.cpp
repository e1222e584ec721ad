#include "server/cli/log_setup.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <nlohmann/json.hpp>

namespace tramontane {
namespace {

// %*: `"event":{…}` for a message that is an object, `"message":"…"` for any other text.
class JsonMessage : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    const std::string text(message.payload.begin(), message.payload.end());
    const bool is_object = text.starts_with('{') && nlohmann::json::accept(text);
    // Whatever a client put into a line: invalid UTF-8 is replaced, quotes and line ends are escaped.
    const std::string member =
        is_object ? "\"event\":" + text
                  : "\"message\":" +
                        nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    out.append(member.data(), member.data() + member.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonMessage>(); }
};

}  // namespace

void set_up_logging(const std::string& level, const std::string& format) {
  auto logger = spdlog::get("tramontane");
  if (!logger) logger = spdlog::stderr_color_mt("tramontane");
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<JsonMessage>('*').set_pattern(
      format == "json" ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%*})"
                       : "%Y-%m-%d %H:%M:%S.%e %^%l%$ %v");
  logger->set_formatter(std::move(formatter));
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

}  // namespace tramontane
