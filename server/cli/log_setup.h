// How the program logs: to standard error, so that standard output stays the program's own words.
#pragma once

#include <string>

namespace tramontane {

// `level`: debug, info, warn, error, off. `format`: text ("2026-01-31 12:00:00.123 info …") or json, one
// object a line with time, level and message; a message that is a JSON object itself stands under "event" as
// it is. Call before any thread logs.
void set_up_logging(const std::string& level, const std::string& format);

}  // namespace tramontane
