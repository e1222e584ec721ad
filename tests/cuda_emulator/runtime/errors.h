// CUDA's error codes by name and by what they say.
#pragma once

#include <driver_types.h>

#include <optional>
#include <string_view>

namespace tramontane::emulator {

struct ErrorText {
  cudaError_t error;
  const char* name;
  const char* text;
};

// Null for a code that the emulator never gives.
const ErrorText* find_error(cudaError_t error);
std::optional<cudaError_t> error_named(std::string_view name);

// Whether every call fails from now on, once a call has given this error: the context is lost.
bool ends_context(cudaError_t error);

}  // namespace tramontane::emulator
