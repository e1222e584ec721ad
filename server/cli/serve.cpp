#include "server/cli/serve.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>
#include <thread>

#include "server/cli/load_model.h"
#include "server/cli/log_setup.h"
#include "server/cli/signals.h"
#include "server/http_server.h"

namespace tramontane {
namespace {

// A signal arrived while the model was loading.
struct Interrupted {};

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::string url_of(const std::string& host, int port) {
  // The wildcard addresses are no address to connect to.
  std::string name = host == "0.0.0.0" || host == "::" ? "127.0.0.1" : host;
  if (name.find(':') != std::string::npos) name = "[" + name + "]";
  return fmt::format("http://{}:{}", name, port);
}

void announce(const ServerConfig& config, int port, const ServedModel& model) {
  const std::string url = url_of(config.host, port);
  const std::string key =
      config.api_keys.empty() && config.api_key_file.empty() ? "" : "-H 'Authorization: Bearer YOUR_KEY' ";
  fmt::print("listening on {}\n", url);
  fmt::print(
      "try: curl -N {}/v1/{} {}-H 'Content-Type: application/json' -d '{{{}, \"stream\": true, "
      "\"max_tokens\": 100}}'\n",
      url, model.chat_template ? "chat/completions" : "completions", key,
      model.chat_template ? R"("messages": [{"role": "user", "content": "What is the capital of France?"}])"
                          : R"("prompt": "The capital of France is")");
  std::fflush(stdout);  // a pipe would keep it
}

// The thread that serves: its end, planned or not, wakes whoever waits for signals.
class ServingThread {
 public:
  explicit ServingThread(HttpServer& server)
      : server_(server), thread_([this] {
          try {
            server_.run();
          } catch (...) {
            error_ = std::current_exception();
          }
          Signals::notify();
        }) {}
  ~ServingThread() {
    if (!thread_.joinable()) return;
    server_.stop();
    thread_.join();
  }
  void join() {
    thread_.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  HttpServer& server_;
  std::exception_ptr error_;
  std::thread thread_;
};

// Until a signal, or until the engine or the serving thread has ended by itself.
void wait_and_drain(const Signals& signals, HttpServer& server, const ServedModel& model,
                    double drain_timeout) {
  if (signals.wait() == SIGUSR1) {
    // A failed engine has ended every request: what is left is to send the answers that say so.
    if (model.engine->stats().failed) server.drain();
    return;
  }
  spdlog::info("draining: streams in flight have {} s; a second signal stops at once", drain_timeout);
  std::thread drainer([&server] { server.drain(); });
  if (signals.wait() != SIGUSR1) {
    spdlog::info("stopping at once");
    server.stop();
  }
  drainer.join();
}

}  // namespace

int run_serve(const ServerConfig& config) {
  check_consistent(config);
  set_up_logging(config.log_level, config.log_format);
  const Signals signals;
  LoadedModel model;  // outlives the threads that answer from it
  HttpServer server(config);
  ServingThread serving(server);
  if (!is_loopback(config.host) && config.api_keys.empty() && config.api_key_file.empty()) {
    spdlog::warn(
        "--host {} is reachable from other machines and no --api-key is set: anyone can use this server",
        config.host);
  }
  try {
    EngineOptions engine = engine_options(config.model);
    engine.max_queue = config.max_queue;
    engine.max_queue_tokens = config.max_queue_tokens;
    engine.queue_timeout = config.queue_timeout;
    engine.on_failure = Signals::notify;
    model = load_model(config.model, engine, config.served_model_name,
                       [&](const std::string& what, double share) {
                         if (signals.poll()) throw Interrupted{};
                         server.set_loading(what, share);
                       });
  } catch (const Interrupted&) {
    return 0;
  }
  server.ready(model.served);
  announce(config, server.port(), model.served);
  wait_and_drain(signals, server, model.served, config.drain_timeout);
  serving.join();
  const EngineStats stats = model.engine->stats();
  if (stats.failed) throw std::runtime_error("the engine failed: " + stats.failure);
  return 0;
}

}  // namespace tramontane
