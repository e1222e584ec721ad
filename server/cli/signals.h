// Signals: the signals that end a server, received by a wait instead of a handler, so that any code may
// follow them. One thread owns it; notify() may be called from any.
#pragma once

#include <csignal>
#include <optional>

namespace tramontane {

class Signals {
 public:
  // Blocks SIGINT, SIGTERM and SIGUSR1 in this thread and those it starts from now on; a write to a closed
  // socket is an error, not SIGPIPE.
  Signals();
  // The next signal, waiting for it. It costs no CPU.
  int wait() const;
  // A signal that has arrived already.
  std::optional<int> poll() const;
  // Wakes wait() with SIGUSR1, used for "the server's own thread has ended".
  static void notify();

 private:
  sigset_t set_;
};

}  // namespace tramontane
