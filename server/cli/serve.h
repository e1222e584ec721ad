// `tramontane serve`: binds, loads, answers, and leaves when it is told to.
#pragma once

#include "config/server_config.h"

namespace tramontane {

// Serves until SIGTERM or SIGINT; the first one drains, a second one stops at once. Returns the exit code.
// Must be called before the process has started a thread: it decides which thread receives signals.
// Throws std::runtime_error when the port is taken or the model cannot be loaded.
int run_serve(const ServerConfig& config);

}  // namespace tramontane
