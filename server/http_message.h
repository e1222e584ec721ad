// HttpRequest, HttpResponse, ByteSink: what the handlers see of HTTP. Only http_server.cpp knows the library
// below.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/request_record.h"

namespace tramontane {

struct HttpRequest {
  std::string method, path, body;  // path: decoded, without the query
  std::string id;                  // x-request-id
  std::string key_name;            // which API key ("key-1"); empty without authentication
  std::string key_salt;  // keeps the prefix caches of different keys apart; empty without authentication
  std::function<bool()> client_gone = [] { return false; };
  std::shared_ptr<RequestRecord> record =
      std::make_shared<RequestRecord>();  // the handler fills in what it knows
};

// Where a streamed body goes. One thread.
class ByteSink {
 public:
  virtual ~ByteSink() = default;
  // False: the client is gone or too slow; nothing more will arrive.
  virtual bool write(std::string_view bytes) = 0;
  virtual bool alive() = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  std::function<void(ByteSink&)>
      stream;  // when set, the body is what this writes; it is called once or never
};

}  // namespace tramontane
