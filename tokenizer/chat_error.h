#pragma once

#include <stdexcept>
#include <string>

namespace tramontane {

// A chat that cannot be encoded; `param` names the place ("messages[3].role").
struct ChatError : std::runtime_error {
  ChatError(std::string place, const std::string& message)
      : std::runtime_error(message), param(std::move(place)) {}
  std::string param;
};

}  // namespace tramontane
