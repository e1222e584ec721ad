#include "server/cli/signals.h"

#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>

namespace tramontane {

Signals::Signals() {
  sigemptyset(&set_);
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) sigaddset(&set_, signal);
  if (pthread_sigmask(SIG_BLOCK, &set_, nullptr) != 0) throw std::runtime_error("cannot block signals");
  std::signal(SIGPIPE, SIG_IGN);
}

int Signals::wait() const {
  int signal = 0;
  while (sigwait(&set_, &signal) != 0) continue;
  return signal;
}

std::optional<int> Signals::poll() const {
  const timespec none{};
  const int signal = sigtimedwait(&set_, nullptr, &none);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

void Signals::notify() {
  kill(getpid(), SIGUSR1);
}

}  // namespace tramontane
