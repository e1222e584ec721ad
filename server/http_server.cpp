#include "server/http_server.h"

#include <httplib.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "server/api_keys.h"
#include "server/connection_pool.h"
#include "server/request_id.h"
#include "server/routes.h"

namespace tramontane {
namespace {

using Clock = std::chrono::steady_clock;
using HandlerResponse = httplib::Server::HandlerResponse;

constexpr time_t kKeepAliveSeconds =
    75;                               // longer than the idle limits of the usual proxies: they close first
constexpr time_t kReadSeconds = 10;   // between two parts of a request
constexpr time_t kWriteSeconds = 30;  // a client that takes nothing for so long is gone
constexpr size_t kSpareThreads =
    32;  // beyond running and queued requests: health checks, refusals, idle connections
constexpr size_t kMostThreads = 2048;
constexpr size_t kOverflowConnections = 64;
constexpr double kLongestDrain = 365.0 * 86400;        // seconds; what a clock can add
constexpr auto kAbortGrace = std::chrono::seconds(5);  // for the error events of streams that are cut off

size_t thread_limit(const ServerConfig& config) {
  if (config.http_threads > 0) return static_cast<size_t>(config.http_threads);
  const size_t promised =
      static_cast<size_t>(config.model.max_sequences) + static_cast<size_t>(config.max_queue);
  return std::min(promised + kSpareThreads, kMostThreads);
}

class TaskQueue final : public httplib::TaskQueue {
 public:
  explicit TaskQueue(size_t threads) : pool_(threads, kOverflowConnections) {}
  bool enqueue(std::function<void()> job) override { return pool_.enqueue(std::move(job)); }
  void shutdown() override { pool_.shutdown(); }

 private:
  ConnectionPool pool_;
};

class HttplibSink final : public ByteSink {
 public:
  explicit HttplibSink(httplib::DataSink& sink) : sink_(sink) {}
  bool write(std::string_view bytes) override { return sink_.write(bytes.data(), bytes.size()); }
  bool alive() override { return sink_.is_writable(); }

 private:
  httplib::DataSink& sink_;
};

// SO_REUSEADDR alone: with the library's own SO_REUSEPORT two servers would share a port without a word.
void set_socket_options(socket_t socket) {
  const int on = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
}

// The library says "Connection: close" with every error, but waits for the next request all the same, and
// after a malformed one reads on at some place inside it. A provider that gives everything and then fails
// makes it close. A server that stops would not call it any more: it is in flight until it was.
void close_after(httplib::Response& response, std::string body, const std::string& content_type,
                 ServerState& state) {
  const size_t size = body.size();
  response.set_content_provider(
      size, content_type,
      [body = std::move(body), in_flight = std::make_shared<ServerState::InFlight>(state)](
          size_t offset, size_t length, httplib::DataSink& sink) {
        sink.write(body.data() + offset, length);
        return false;
      });
}

RequestError transport_error(int status) {
  const auto error = [&](const char* message, const char* code) {
    return RequestError(status, "invalid_request_error", "", message, code);
  };
  switch (status) {
    case 400:
      return error("The HTTP request is malformed.", "");
    case 413:
      return error("The request body is too large.", "request_too_large");
    case 414:
      return error("The URL is too long.", "");
    case 415:
      return error("This Content-Encoding is not supported.", "unsupported_media_type");
    case 416:
      return error("Ranges are not supported.", "");
    default:
      return error(httplib::status_message(status), "");
  }
}

}  // namespace

class HttpServer::Impl {
 public:
  explicit Impl(const ServerConfig& config);

  int port() const { return port_; }
  ServerState& state() { return state_; }
  void run();
  void drain();
  void stop();

 private:
  void bind();
  void install_handlers();
  HandlerResponse before_routing(const httplib::Request& request, httplib::Response& response);
  void post(const httplib::Request& request, httplib::Response& response,
            const httplib::ContentReader& reader);
  void fill_error(const httplib::Request& request, httplib::Response& response);

  std::optional<RequestError> refuse(const httplib::Request& request) const;
  std::optional<ApiKeyIdentity> identify(const httplib::Request& request) const;
  bool read_body(const httplib::ContentReader& reader, std::string& body) const;
  HttpRequest to_request(const httplib::Request& request, const httplib::Response& response) const;
  void answer(const httplib::Request& request, httplib::Response& response, std::string body);
  void send(httplib::Response& response, HttpResponse&& answer, std::shared_ptr<RequestRecord> record);
  void add_cors(const httplib::Request& request, httplib::Response& response) const;
  void log(RequestRecord& record) const;

  const ServerConfig config_;
  const ApiKeys keys_;
  ServerState state_;
  const Routes routes_;
  httplib::Server server_;
  int port_ = 0;

  std::mutex run_mutex_;
  bool run_ = false, stopped_ = false;
  std::atomic<bool> ended_ = false;
};

HttpServer::Impl::Impl(const ServerConfig& config)
    : config_(config), keys_(config.api_keys, config.api_key_file), routes_(config_, state_) {
  install_handlers();
  bind();
}

void HttpServer::Impl::bind() {
  server_.set_socket_options(set_socket_options);
  errno = 0;
  port_ = config_.port == 0                                  ? server_.bind_to_any_port(config_.host)
          : server_.bind_to_port(config_.host, config_.port) ? config_.port
                                                             : -1;
  if (port_ > 0) return;
  const std::string why = errno == 0 ? "no such address" : std::strerror(errno);
  throw std::runtime_error("cannot listen on " + config_.host + ":" + std::to_string(config_.port) + ": " +
                           why);
}

void HttpServer::Impl::install_handlers() {
  server_.set_keep_alive_timeout(kKeepAliveSeconds);
  server_.set_keep_alive_max_count(1'000'000);
  server_.set_read_timeout(kReadSeconds);
  server_.set_write_timeout(kWriteSeconds);
  server_.set_tcp_nodelay(true);  // a token is a small packet that must not wait for the next
  // Past our own limit a body is read and thrown away, so that the client reads the 413 instead of a reset;
  // past this one it is not.
  server_.set_payload_max_length(static_cast<size_t>(config_.max_body_bytes) * 4 + (64u << 20));
  server_.new_task_queue = [threads = thread_limit(config_)] { return new TaskQueue(threads); };
  server_.set_pre_routing_handler(
      [this](const auto& request, auto& response) { return before_routing(request, response); });
  server_.set_error_handler([this](const httplib::Request& request, httplib::Response& response) {
    fill_error(request, response);
  });
  for (const std::string& path : Routes::post_paths()) {
    server_.Post(path, [this](const httplib::Request& request, httplib::Response& response,
                              const httplib::ContentReader& reader) { post(request, response, reader); });
  }
}

// Everything but a POST that is to be read is answered here: the library's own routing would try regular
// expressions on any path.
HandlerResponse HttpServer::Impl::before_routing(const httplib::Request& request,
                                                 httplib::Response& response) {
  response.set_header("x-request-id", request_id(request.get_header_value("x-request-id")));
  add_cors(request, response);
  if (request.method == "OPTIONS" && response.has_header("Access-Control-Allow-Origin") &&
      !routes_.methods(request.path).empty()) {
    response.status = 204;
    return HandlerResponse::Handled;
  }
  if (const auto refusal = refuse(request)) {
    if (refusal->status == 405) response.set_header("Allow", routes_.methods(request.path));
    if (refusal->status == 401) response.set_header("WWW-Authenticate", "Bearer");
    HttpRequest plain = to_request(request, response);
    send(response, error_response(*refusal), plain.record);
    return HandlerResponse::Handled;
  }
  if (request.method == "POST") return HandlerResponse::Unhandled;
  answer(request, response, {});
  return HandlerResponse::Handled;
}

std::optional<RequestError> HttpServer::Impl::refuse(const httplib::Request& request) const {
  if (ConnectionPool::on_overflow_thread()) {
    RequestError error(503, "server_error", "", "The server has no connection left for this request.",
                       "overloaded");
    error.retry_after_s = 1;
    return error;
  }
  for (const char* name : {"Authorization", "Content-Type", "Content-Length"}) {
    if (request.get_header_value_count(name) > 1) {
      return RequestError(400, "invalid_request_error", "",
                          std::string("The header ") + name + " was sent more than once.");
    }
  }
  if (keys_.required() && routes_.needs_key(request.path) && !identify(request)) {
    const bool sent = request.has_header("Authorization");
    return RequestError(401, "invalid_request_error", "",
                        sent ? "Incorrect API key provided."
                             : "You didn't provide an API key: send it as 'Authorization: Bearer YOUR_KEY'.",
                        "invalid_api_key");
  }
  return routes_.refuse(request.method, request.path, request.get_header_value("Content-Type"));
}

std::optional<ApiKeyIdentity> HttpServer::Impl::identify(const httplib::Request& request) const {
  const std::string header = request.get_header_value("Authorization");
  constexpr std::string_view kScheme = "bearer ";
  if (header.size() < kScheme.size()) return std::nullopt;
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(header[i])) != kScheme[i]) return std::nullopt;
  }
  return keys_.identify(std::string_view(header).substr(kScheme.size()));
}

// False: the body ended early. A body past the limit is read to its end, but not kept.
bool HttpServer::Impl::read_body(const httplib::ContentReader& reader, std::string& body) const {
  const size_t limit = static_cast<size_t>(config_.max_body_bytes);
  const bool complete = reader([&](const char* data, size_t size) {
    if (body.size() <= limit) body.append(data, std::min(size, limit + 1 - body.size()));
    return true;
  });
  if (complete && body.size() > limit) {
    throw RequestError(413, "invalid_request_error", "",
                       "The request body has more than " + std::to_string(limit) + " bytes.",
                       "request_too_large");
  }
  return complete;
}

void HttpServer::Impl::post(const httplib::Request& request, httplib::Response& response,
                            const httplib::ContentReader& reader) {
  std::string body;
  try {
    if (!read_body(reader, body)) {
      send(response, error_response(transport_error(response.status < 400 ? 400 : response.status)),
           to_request(request, response).record);
      return;
    }
  } catch (const RequestError& error) {
    send(response, error_response(error), to_request(request, response).record);
    return;
  }
  answer(request, response, std::move(body));
}

HttpRequest HttpServer::Impl::to_request(const httplib::Request& request,
                                         const httplib::Response& response) const {
  HttpRequest plain;
  plain.method = request.method;
  plain.path = request.path;
  plain.id = response.get_header_value("x-request-id");
  plain.client_gone = request.is_connection_closed;
  if (keys_.required()) {
    if (const auto identity = identify(request)) {
      plain.key_name = identity->name;
      plain.key_salt = identity->salt;
    }
  }
  plain.record->id = plain.id;
  plain.record->key = plain.key_name;
  plain.record->method = plain.method;
  plain.record->path = plain.path;
  return plain;
}

void HttpServer::Impl::answer(const httplib::Request& request, httplib::Response& response,
                              std::string body) {
  const ServerState::InFlight in_flight(state_);  // also between the handler's end and send()
  HttpRequest plain = to_request(request, response);
  plain.body = std::move(body);
  send(response, routes_.handle(plain), plain.record);
}

void HttpServer::Impl::send(httplib::Response& response, HttpResponse&& answer,
                            std::shared_ptr<RequestRecord> record) {
  response.status = answer.status;
  record->status = answer.status;
  for (const auto& [name, value] : answer.headers) response.set_header(name, value);
  if (!answer.stream) {
    log(*record);
    if (answer.status < 400) {
      response.set_content(std::move(answer.body), answer.content_type);
    } else {
      close_after(response, std::move(answer.body), answer.content_type, state_);
    }
    return;
  }
  // The whole stream is one call: between calls the library would cut it when the server stops.
  response.set_chunked_content_provider(answer.content_type, [this, stream = std::move(answer.stream),
                                                              record](size_t, httplib::DataSink& sink) {
    HttplibSink bytes(sink);
    stream(bytes);
    log(*record);
    sink.done();
    return true;
  });
}

// Refusals of the library itself, before any handler saw the request.
void HttpServer::Impl::fill_error(const httplib::Request& request, httplib::Response& response) {
  if (!response.body.empty() || response.content_provider_) return;
  if (!response.has_header("x-request-id"))
    response.set_header("x-request-id", request_id(request.get_header_value("x-request-id")));
  HttpRequest plain = to_request(request, response);
  send(response, error_response(transport_error(response.status)), plain.record);
}

void HttpServer::Impl::add_cors(const httplib::Request& request, httplib::Response& response) const {
  const std::string origin = request.get_header_value("Origin");
  if (origin.empty() || config_.cors_origins.empty()) return;
  const auto& allowed = config_.cors_origins;
  const bool any = std::find(allowed.begin(), allowed.end(), "*") != allowed.end();
  if (!any && std::find(allowed.begin(), allowed.end(), origin) == allowed.end()) return;
  response.set_header("Access-Control-Allow-Origin", any ? "*" : origin);
  response.set_header("Vary", "Origin");
  response.set_header("Access-Control-Expose-Headers", "x-request-id, X-Ignored-Params, Retry-After");
  if (request.method != "OPTIONS") return;
  response.set_header("Access-Control-Allow-Methods", "GET, POST, OPTIONS");
  response.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type, x-request-id");
  response.set_header("Access-Control-Max-Age", "86400");
}

void HttpServer::Impl::log(RequestRecord& record) const {
  record.total_s = std::chrono::duration<double>(Clock::now() - record.received).count();
  // Probes come every few seconds: they are for debugging only.
  const bool probe = record.path.starts_with("/health");
  const auto level = probe ? spdlog::level::debug : spdlog::level::info;
  if (!spdlog::should_log(level)) return;
  spdlog::log(level, "{}", config_.log_format == "json" ? record.to_json() : record.to_text());
}

void HttpServer::Impl::run() {
  {
    std::lock_guard lock(run_mutex_);
    if (stopped_) return;
    run_ = true;
  }
  server_.listen_after_bind();
  ended_ = true;
  std::lock_guard lock(run_mutex_);
  if (!stopped_)
    throw std::runtime_error("the server stopped listening: " + std::string(std::strerror(errno)));
}

void HttpServer::Impl::drain() {
  state_.draining = true;
  state_.wait_until_quiet(std::chrono::duration<double>(std::min(config_.drain_timeout, kLongestDrain)));
  stop();
}

void HttpServer::Impl::stop() {
  state_.draining = true;
  state_.abort();
  const auto until = Clock::now() + kAbortGrace;
  while (state_.in_flight() > 0 && Clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  {
    // Of several callers (a drain, a second signal) one alone may stop the library, which refuses to be
    // stopped twice.
    std::lock_guard lock(run_mutex_);
    if (std::exchange(stopped_, true) || !run_) return;
  }
  // The library forgets a stop that comes before it listens.
  while (!server_.is_running() && !ended_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!ended_) server_.stop();
}

HttpServer::HttpServer(const ServerConfig& config) : impl_(std::make_unique<Impl>(config)) {}
HttpServer::~HttpServer() = default;
int HttpServer::port() const {
  return impl_->port();
}
void HttpServer::set_loading(const std::string& what, double share) {
  impl_->state().set_loading(what, share);
}
void HttpServer::ready(const ServedModel& model) {
  impl_->state().model = &model;
}
void HttpServer::run() {
  impl_->run();
}
void HttpServer::drain() {
  impl_->drain();
}
void HttpServer::stop() {
  impl_->stop();
}

}  // namespace tramontane
