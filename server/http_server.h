// HttpServer: sockets, limits, authentication and shutdown around routes.h. One thread per open connection
// (cpp-httplib).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "config/server_config.h"
#include "server/served_model.h"

namespace tramontane {

class HttpServer {
 public:
  // Binds the port at once (throws std::runtime_error: "cannot listen on 127.0.0.1:8080: address in use"),
  // serves 503 until ready().
  explicit HttpServer(const ServerConfig& config);
  ~HttpServer();

  int port() const;  // the bound one
  // Loading progress for /health/ready, 0..1, with what is being done.
  void set_loading(const std::string& what, double share);
  // From now on requests are answered. `model` must outlive the server.
  void ready(const ServedModel& model);
  // Serves until drain() has finished or stop() is called; called by main's thread after construction on a
  // thread of its own choice.
  void run();
  // Ready turns 503, new requests are refused, streams in flight finish up to drain_timeout, then get an
  // error event. Any thread.
  void drain();
  void stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tramontane
