// Names for requests and responses. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace tramontane {

// 128 random bits as 32 hexadecimal digits; for names, not for secrets.
std::string random_hex();
// The client's own x-request-id when it is safe in a header and a log line (1 to 128 visible ASCII
// characters), else a new one.
std::string request_id(std::string_view from_client);

}  // namespace tramontane
