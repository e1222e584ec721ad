#include "server/routes.h"

#include <spdlog/spdlog.h>

#include "server/completion_handler.h"
#include "server/json_body.h"
#include "server/openai_response.h"
#include "server/request_fields.h"

namespace tramontane {

using nlohmann::json;

struct Route {
  std::string_view method, path;
  bool needs_key;
  bool prefix;  // everything below the path, which ends in /
  HttpResponse (Routes::*handler)(const HttpRequest&) const;
};

namespace {

constexpr std::string_view kModelPrefix = "/v1/models/";

RequestError server_busy(const std::string& message, const std::string& code, int retry_after_s) {
  RequestError error(503, "server_error", "", message, code);
  error.retry_after_s = retry_after_s;
  return error;
}

RequestError unknown_model(const std::string& name) {
  return RequestError(404, "invalid_request_error", "model", "The model '" + name + "' does not exist.",
                      "model_not_found");
}

HttpResponse json_response(const OrderedJson& body, const std::vector<std::string>& ignored = {}) {
  HttpResponse response;
  response.body = to_body(body);
  if (!ignored.empty()) response.headers.emplace_back("X-Ignored-Params", header_list(ignored));
  return response;
}

std::string media_type(std::string_view content_type) {
  std::string type(content_type.substr(0, content_type.find(';')));
  while (!type.empty() && (type.back() == ' ' || type.back() == '\t')) type.pop_back();
  for (char& c : type) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return type;
}

}  // namespace

std::span<const Route> Routes::table() {
  static constexpr Route kRoutes[] = {
      {"POST", "/v1/chat/completions", true, false, &Routes::chat},
      {"POST", "/v1/completions", true, false, &Routes::completions},
      {"GET", "/v1/models", true, false, &Routes::models},
      {"GET", kModelPrefix, true, true, &Routes::model},
      {"POST", "/tokenize", true, false, &Routes::tokenize},
      {"POST", "/detokenize", true, false, &Routes::detokenize},
      {"POST", "/apply-template", true, false, &Routes::apply_template},
      {"GET", "/health", false, false, &Routes::ready},
      {"GET", "/health/live", false, false, &Routes::live},
      {"GET", "/health/ready", false, false, &Routes::ready},
  };
  return kRoutes;
}

const Route* Routes::find(const std::string& path) const {
  for (const Route& route : table()) {
    if (route.prefix ? path.size() > route.path.size() && path.starts_with(route.path) : path == route.path)
      return &route;
  }
  return nullptr;
}

std::vector<std::string> Routes::post_paths() {
  std::vector<std::string> paths;
  for (const Route& route : table()) {
    if (route.method == "POST") paths.emplace_back(route.path);
  }
  return paths;
}

bool Routes::needs_key(const std::string& path) const {
  const Route* route = find(path);
  return route == nullptr || route->needs_key;
}

std::string Routes::methods(const std::string& path) const {
  const Route* route = find(path);
  if (route == nullptr) return {};
  return route->method == "GET" ? "GET, HEAD" : "POST";
}

std::optional<RequestError> Routes::refuse(const std::string& method, const std::string& path,
                                           std::string_view content_type) const {
  const Route* route = find(path);
  if (route == nullptr) return unknown_path(method, path);
  const bool allowed = method == route->method || (method == "HEAD" && route->method == "GET");
  if (!allowed) {
    return RequestError(
        405, "invalid_request_error", "",
        "Not allowed to " + method + " on " + path + ": use " + std::string(route->method) + ".",
        "method_not_supported");
  }
  const std::string type = media_type(content_type);
  if (method == "POST" && !type.empty() && type != "application/json") {
    return RequestError(415, "invalid_request_error", "",
                        "Unsupported Content-Type '" + type + "': send application/json.",
                        "unsupported_media_type");
  }
  return std::nullopt;
}

HttpResponse Routes::handle(const HttpRequest& request) const {
  try {
    const Route* route = find(request.path);
    if (route == nullptr) throw unknown_path(request.method, request.path);
    return (this->*route->handler)(request);
  } catch (const RequestError& error) {
    return error_response(error);
  } catch (const std::exception& error) {
    spdlog::error("id={} {}: {}", request.id, request.path, error.what());
    return error_response(RequestError(
        500, "server_error", "", "The server had an error while processing the request.", "internal_error"));
  }
}

const ServedModel& Routes::served_model() const {
  const ServedModel* model = state_.model;
  if (state_.draining) throw server_busy("The server is shutting down.", "shutting_down", 0);
  if (model == nullptr || model->engine == nullptr)
    throw server_busy("The model is loading.", "model_loading", 1);
  return *model;
}

ParameterLimits Routes::limits(const ServedModel& model) const {
  return limits_of(config_, model.defaults, model.engine->vocab_size(), model.engine->max_model_len());
}

ParsedRequest Routes::parse(const json& body, Endpoint endpoint, const ServedModel& model) const {
  ParsedRequest parsed = parse_request(body, endpoint, limits(model));
  if (const auto name = body.find("model");
      name != body.end() && !name->is_null() && parsed.model != model.id)
    throw unknown_model(parsed.model);
  return parsed;
}

HttpResponse Routes::complete(const HttpRequest& request, Endpoint endpoint) const {
  const ServedModel& model = served_model();
  const ParsedRequest parsed = parse(parse_json_body(request.body, config_.max_json_depth), endpoint, model);
  return handle_completion(request, parsed, limits(model), model, state_);
}

HttpResponse Routes::models(const HttpRequest&) const {
  const ServedModel& model = served_model();
  return json_response({{"object", "list"},
                        {"data", OrderedJson::array({model_object(model, model.engine->max_model_len())})}});
}

HttpResponse Routes::model(const HttpRequest& request) const {
  const ServedModel& model = served_model();
  const std::string name = request.path.substr(kModelPrefix.size());
  if (name != model.id) throw unknown_model(name);
  return json_response(model_object(model, model.engine->max_model_len()));
}

HttpResponse Routes::tokenize(const HttpRequest& request) const {
  const ServedModel& model = served_model();
  const json body = parse_json_body(request.body, config_.max_json_depth);
  const ParsedRequest parsed = parse(body, Endpoint::tokenize, model);
  const bool chat = body.contains("messages");
  if (chat == !parsed.prompt.is_null()) throw wrong_value("prompt", "send either prompt or messages.");
  std::vector<int32_t> ids;
  if (chat) {
    ids = encode_chat(model.chat_template.get(), request.body).ids;
  } else {
    if (!parsed.prompt.is_string()) throw wrong_type("prompt", "a string", parsed.prompt);
    ids = model.tokenizer->encode(parsed.prompt.get<std::string>());
    if (parsed.add_special_tokens && model.tokenizer->adds_bos())
      ids.insert(ids.begin(), model.tokenizer->bos_id());
  }
  OrderedJson answer = {
      {"tokens", ids}, {"count", ids.size()}, {"max_model_len", model.engine->max_model_len()}};
  if (parsed.return_pieces) {
    answer["pieces"] = OrderedJson::array();
    for (const int32_t id : ids) answer["pieces"].push_back(model.tokenizer->piece(id));
  }
  return json_response(answer, parsed.ignored);
}

HttpResponse Routes::detokenize(const HttpRequest& request) const {
  const ServedModel& model = served_model();
  const json body = parse_json_body(request.body, config_.max_json_depth);
  const ParsedRequest parsed = parse(body, Endpoint::detokenize, model);
  if (!body.contains("tokens"))
    throw RequestError(400, "invalid_request_error", "tokens", "Missing required parameter: 'tokens'.",
                       "missing_required_parameter");
  const std::vector<int32_t> ids = parse_ids(body.at("tokens"), model.tokenizer->vocab_size(), "tokens");
  return json_response({{"prompt", model.tokenizer->decode(ids)}}, parsed.ignored);
}

HttpResponse Routes::apply_template(const HttpRequest& request) const {
  const ServedModel& model = served_model();
  const ParsedRequest parsed =
      parse(parse_json_body(request.body, config_.max_json_depth), Endpoint::apply_template, model);
  const EncodedChat chat = encode_chat(model.chat_template.get(), request.body);
  return json_response({{"prompt", chat.text}, {"tokens", chat.ids}}, parsed.ignored);
}

HttpResponse Routes::live(const HttpRequest&) const {
  return json_response({{"status", "live"}});
}

HttpResponse Routes::ready(const HttpRequest&) const {
  const auto not_ready = [](const std::string& status, const std::string& message,
                            OrderedJson more = OrderedJson::object()) {
    OrderedJson body = error_object(server_busy(message, status, 0));
    body["status"] = status;
    body.update(more);
    HttpResponse response = json_response(body);
    response.status = 503;
    return response;
  };
  if (state_.draining) return not_ready("draining", "The server is shutting down.");
  const ServedModel* model = state_.model;
  if (model == nullptr || model->engine == nullptr) {
    const auto [what, share] = state_.loading();
    return not_ready("loading", "The model is loading: " + what, {{"loading", what}, {"progress", share}});
  }
  const EngineStats stats = model->engine->stats();
  if (stats.failed) return not_ready("failed", "The engine failed: " + stats.failure);
  if (config_.watchdog_seconds > 0 && stats.seconds_since_step > config_.watchdog_seconds) {
    return not_ready("stalled", "No step has ended for " +
                                    std::to_string(static_cast<int64_t>(stats.seconds_since_step)) +
                                    " s with work queued.");
  }
  return json_response(
      {{"status", "ready"}, {"model", model->id}, {"running", stats.running}, {"waiting", stats.waiting}});
}

HttpResponse error_response(const RequestError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = to_body(error_object(error));
  if (error.retry_after_s > 0)
    response.headers.emplace_back("Retry-After", std::to_string(error.retry_after_s));
  return response;
}

RequestError unknown_path(const std::string& method, const std::string& path) {
  const bool later = path == "/metrics" || path == "/" || path == "/openapi.json";
  const std::string why = later ? " is not built yet" : "";
  return RequestError(404, "invalid_request_error", "",
                      "Invalid URL (" + method + " " + path.substr(0, 200) + ")" + why,
                      later ? "not_implemented" : "");
}

}  // namespace tramontane
