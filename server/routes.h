// Routes: the path table and the handlers behind it. Knows no sockets; every member may be called from any
// thread.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "config/server_config.h"
#include "engine/request.h"
#include "server/http_message.h"
#include "server/openai_request.h"
#include "server/server_state.h"

namespace tramontane {

struct Route;

class Routes {
 public:
  // Both must outlive the routes.
  Routes(const ServerConfig& config, ServerState& state) : config_(config), state_(state) {}

  // What can be said before the body is read: 404, 405, 415.
  std::optional<RequestError> refuse(const std::string& method, const std::string& path,
                                     std::string_view content_type) const;
  // Whether the path asks for an API key, where there are keys. Unknown paths do.
  bool needs_key(const std::string& path) const;
  // Methods of the path, for Allow: "GET, HEAD". Empty: no such path.
  std::string methods(const std::string& path) const;
  // Every POST path, for the library below.
  static std::vector<std::string> post_paths();

  // Never throws.
  HttpResponse handle(const HttpRequest& request) const;

 private:
  friend struct Route;
  static std::span<const Route> table();
  const Route* find(const std::string& path) const;

  HttpResponse chat(const HttpRequest& request) const { return complete(request, Endpoint::chat); }
  HttpResponse completions(const HttpRequest& request) const {
    return complete(request, Endpoint::completions);
  }
  HttpResponse models(const HttpRequest& request) const;
  HttpResponse model(const HttpRequest& request) const;
  HttpResponse tokenize(const HttpRequest& request) const;
  HttpResponse detokenize(const HttpRequest& request) const;
  HttpResponse apply_template(const HttpRequest& request) const;
  HttpResponse live(const HttpRequest& request) const;
  HttpResponse ready(const HttpRequest& request) const;

  HttpResponse complete(const HttpRequest& request, Endpoint endpoint) const;
  // Throws RequestError 503 while there is none.
  const ServedModel& served_model() const;
  ParameterLimits limits(const ServedModel& model) const;
  // Body to fields; refuses another model's name.
  ParsedRequest parse(const nlohmann::json& body, Endpoint endpoint, const ServedModel& model) const;

  const ServerConfig& config_;
  ServerState& state_;
};

// The error as a response, with Retry-After where the error has one.
HttpResponse error_response(const RequestError& error);
// 404 for a path that is nothing here.
RequestError unknown_path(const std::string& method, const std::string& path);

}  // namespace tramontane
